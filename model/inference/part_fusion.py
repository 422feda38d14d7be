"""Pictures of facial parts fused into the text of one call, in all denoising steps or after the first ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.face.face_parts import described, part_places
from model.network.adapter import Adapter
from model.network.base import empty_states
from model.network.text_encoding import tokenizing

Fuse = Callable[[Tensor, Tensor, Tensor], Tensor]


class PartFusion:
    """The text states of a call in which the words that name facial parts also carry their pictures.

    `fuse`: FacialEncoder.fuse. `parts` (B, R, D): vectors of the parts; `places` (B, R): the tokens that name them.
    In the first `plain_steps` steps the text is plain. `empty` (1, R, D): vectors that published code fuses into the
    negative text, at the same tokens and in all steps; None leaves it as it is, as in training here.
    """

    def __init__(
        self, fuse: Fuse, parts: Tensor, places: Tensor, *, plain_steps: int = 0, empty: Tensor | None = None
    ) -> None:
        self._fuse, self._parts, self._places = fuse, parts, places
        self._plain_steps, self._empty = plain_steps, empty
        self._later: Tensor | None = None

    def texts(self, prompted: Tensor, negative: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the text states (B, T, D) of the first step, from those of the prompts and of the negative prompts."""
        fused = self._fuse(prompted, self._parts, self._places)
        if negative is not None and self._empty is not None:
            negative = self._fuse(negative, self._empty.expand(len(negative), -1, -1), self._places)
        self._later = fused if self._plain_steps else None
        return (prompted if self._plain_steps else fused), negative

    def after(self, steps: int, states: Tensor) -> Tensor:
        """Return the text states for the next step, after `steps` are done, from the present ones.

        With guidance, `states` begin with those of the negative prompts.
        """
        if self._later is None or steps < self._plain_steps:
            return states
        later, self._later = self._later, None
        return torch.cat([states[: len(states) - len(later)], later.to(states)])

    @property
    def waits(self) -> bool:
        """Whether the first steps are without the parts."""
        return self._plain_steps > 0


@tokenizing
def fused_prompt(
    pipe: Any, parts: Tensor, prompt: Any, arguments: dict[str, Any], plain_steps: int | None
) -> tuple[list[str], PartFusion]:
    """Return the prompts with the words that name facial parts, and what fuses `parts` (B, R, D) into these.

    `arguments` are those of the base pipeline; `plain_steps` None: as the adapter states. Raise ValueError where a call
    has no text in which words can be found.
    """
    adapter, device = pipe.adapter, pipe._execution_device
    for given in ("prompt_embeds", "prompt_2"):
        if arguments.get(given) is not None:
            raise ValueError(
                f"{given}: {adapter.method.name} fuses facial parts into the words of the text that name them; give "
                "`prompt` alone"
            )
    if prompt is None:
        raise ValueError(f"no prompt: {adapter.method.name} fuses facial parts into the words that name them")
    tokenizer = pipe._texts()[0][0]
    texts = [described(tokenizer, text) for text in ([prompt] if isinstance(prompt, str) else prompt or ())]
    places = torch.tensor([part_places(tokenizer, text) for text in texts], device=device)
    places = places.repeat_interleave(arguments.get("num_images_per_prompt") or 1, dim=0)
    empty = None
    if adapter.plain_steps is not None:
        adapter.encoders_to(device)
        nothing = adapter.part_vectors(empty_states(pipe.image_encoder, device)[:, None])
        empty = nothing.expand(-1, parts.shape[1], -1)
    steps = (adapter.plain_steps or 0) if plain_steps is None else plain_steps

    def fuse(text: Tensor, vectors: Tensor, at: Tensor) -> Tensor:
        adapter.encoders_to(device)
        fused: Tensor = adapter.facial_encoder.fuse(text.to(vectors), vectors, at).to(text)
        if getattr(pipe, "_all_hooks", None):
            # With offloading, only one model is on the device at a time.
            adapter.encoders_to(torch.device("cpu"))
        return fused

    return texts, PartFusion(fuse, parts, places, plain_steps=steps, empty=empty)


def without_parts(adapter: Adapter, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return identity tokens (B, K·P, D) and the vectors of a method's facial parts behind them, (B, R·P, D) or None.

    Raise ValueError where their number is not that of whole people.
    """
    if not adapter.method.facial_parts:
        return tokens, None
    each, own = adapter.tokens_per_person, adapter.sizes["tokens"]
    if tokens.shape[1] % each:
        raise ValueError(
            f"{tokens.shape[1]} identity tokens: expected a multiple of {each}, for each person {own} and "
            f"{each - own} facial parts, as `tokens_of` returns them"
        )
    by_person = tokens.unflatten(1, (-1, each))
    return by_person[:, :, :own].flatten(1, 2), by_person[:, :, own:].flatten(1, 2)

"""Several people, each in a window of the picture: MultiDiffusion (Bar-Tal et al., ICML 2023), one window per person.

A base that has seen few pictures of several people draws one person well and two badly. Here the picture is wider than
high, and the denoiser sees one square of it at a time: a picture of one person, with the prompt and identity of that
person. Where windows overlap, their predictions are averaged, so that they meet in one picture. No layer sees two
people, so that nothing of one leaks into another; nor can anybody touch anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.base import SDXL
from model.network.identity_state import IdentityState
from model.network.text_encoding import encode_text
from model.network.windows import window_lefts


class PersonWindows(nn.Module):
    """Stands in for a UNet in one call of a pipeline: it calls the UNet once for each person's window.

    `texts` (B, P, T, D): the text of each person's window, in each of B pictures; `pooled` (B, P, E) for XL.
    `prompts`: one for each of the call's prompts, short enough where those of the windows are.
    """

    def __init__(self, unet: Any, prompts: list[str], texts: Tensor, pooled: Tensor | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.prompts = prompts
        self._texts, self._pooled = texts, pooled
        self._read: dict[Any, tuple[Any, list[Tensor]]] = {}
        self._states: tuple[int, list[IdentityState]] | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what this module lacks from the UNet, for the pipeline that takes this for one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):  # such as the hooks of offloading, which belong to one module
                raise
            return getattr(self.unet, name)

    def forward(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Tensor,
        *,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        return_dict: bool = False,
        **arguments: Any,
    ) -> tuple[Tensor]:
        """Return the prediction (B, C, h, w) for all of `sample`; with guidance the first half has no text of people.

        `cross_attention_kwargs` has the identity state of the whole picture, if any; its regions do not apply.
        """
        del return_dict
        rows, columns = sample.shape[-2:]
        lefts = window_lefts(self._texts.shape[1], columns, rows)
        others = {name: value for name, value in (cross_attention_kwargs or {}).items() if name != "identity"}
        identity: IdentityState | None = (cross_attention_kwargs or {}).get("identity")
        states = None if identity is None else self._window_states(identity, rows)
        texts = self._windowed("text", encoder_hidden_states, self._texts)
        total = torch.zeros_like(sample)
        weight, weights = _weights(rows).to(sample), sample.new_zeros(columns)
        gates = sample.new_zeros((len(sample), rows, columns), dtype=torch.float32)
        for person, left in enumerate(lefts):
            window = slice(left, left + rows)
            if added_cond_kwargs is not None:
                arguments["added_cond_kwargs"] = self._added(added_cond_kwargs, person)
            # Where nobody is given, the text alone is drawn.
            given = others if states is None else {**others, "identity": states[person]}
            predicted = self.unet(
                sample[..., window],
                timestep,
                encoder_hidden_states=texts[person],
                cross_attention_kwargs=given or None,
                return_dict=False,
                **arguments,
            )[0]
            total[..., window] += predicted * weight
            weights[window] += weight
            if states is not None and states[person].maps:
                gates[..., window] += _mean_gate(states[person], rows) * weight
        if identity is not None and identity.maps is not None and states is not None and states[0].gate:
            identity.maps.append(gates / weights)
        return (total / weights,)

    def _window_states(self, identity: IdentityState, rows: int) -> list[IdentityState]:
        """Return the identity state of each person's window at the step of the whole picture's."""
        pictures = len(identity.tokens)
        if self._states is None or self._states[0] != pictures:
            people = self._texts.shape[1]
            counts = identity.references or (1,) * people
            each = identity.tokens.shape[1] // sum(counts)
            parts = identity.tokens.split([each * count for count in counts], dim=1)
            scale = identity.scale
            scales = [scale] * people if isinstance(scale, int | float) else scale.split(1, dim=-1)
            states = [
                IdentityState(
                    tokens,
                    gate=identity.gate,
                    threshold=identity.threshold,
                    scale=own,
                    lora_scale=identity.lora_scale,
                    height=rows,
                    width=rows,
                    maps=None if identity.maps is None else [],
                    cache={},
                    references=(count,),
                )
                for tokens, count, own in zip(parts, counts, scales, strict=True)
            ]
            self._states = pictures, states
        for state in self._states[1]:
            state.step = identity.step
        return self._states[1]

    def _windowed(self, name: str, given: Tensor, windows: Tensor) -> list[Tensor]:
        """Return `given` for each person, with the rows of that person's window in place of the pictures' own.

        The same tensors as before while `given` is the same: keys and values of a text are kept by it.
        """
        kept = self._read.get(name)
        if kept is None or kept[0] is not given:
            unguided = given[: len(given) - len(windows)]
            # Of XL's pooled texts, which stand beside each other, the UNet takes the last.
            people = windows[..., -given.shape[-1] :].to(given).unbind(dim=1)
            kept = self._read[name] = (given, [torch.cat([unguided, one]) for one in people])
        return kept[1]

    def _added(self, given: dict[str, Tensor], person: int) -> dict[str, Tensor]:
        """Return XL's added conditions for a person's window: its pooled text, and the size of a whole picture."""
        added = dict(given)
        if self._pooled is not None:
            added["text_embeds"] = self._windowed("pooled", given["text_embeds"], self._pooled)[person]
        if "time_ids" in given:
            # Original size, corner of the crop, target size: (height, width) each. A window is a whole picture.
            times = given["time_ids"].clone()
            times[:, 1], times[:, 5] = times[:, 0], times[:, 4]
            added["time_ids"] = times
        return added


def person_windows(pipe: Any, prompts: Any, pictures: int, copies: int, people: int = 0) -> PersonWindows | None:
    """Return what stands in for the UNet of a pipeline in one call; None without `prompts`.

    `prompts`: one for each person of every one of `pictures` prompts, of which `copies` are drawn, or one such list for
    each. `people`: the number with an identity, 0 where none is given. Raise ValueError for other numbers, and for a
    base without a UNet.
    """
    if prompts is None:
        return None
    if not pipe.in_windows:
        raise ValueError(
            "window_prompts: this pipeline draws several people in regions of one picture: give boxes or masks"
        )
    nested = [list(one) if isinstance(one, list | tuple) else one for one in prompts]
    each: Sequence[Any] = nested if nested and isinstance(nested[0], list) else [nested] * pictures
    counts = {len(one) if isinstance(one, list) else 0 for one in each}
    if len(each) != pictures or len(counts) != 1 or min(counts) < 2 or people not in (0, *counts):
        raise ValueError(
            f"window_prompts of {sorted(counts)} people in {len(each)} pictures: expected one prompt for each of "
            f"{people or 'at least 2'} people, in {pictures} pictures"
        )
    encoded = encode_text(pipe._texts(), [text for one in each for text in one], pipe._execution_device)
    texts, pooled = (part.unflatten(0, (pictures, -1)).repeat_interleave(copies, dim=0) for part in encoded)
    return PersonWindows(pipe.unet, [one[0] for one in each], texts, pooled if pipe.family == SDXL else None)


def _weights(side: int) -> Tensor:
    """Return how much each column of a window counts where it overlaps another: most in its middle, (side,)."""
    columns = torch.arange(side, dtype=torch.float32)
    return torch.minimum(columns + 1, side - columns)


def _mean_gate(state: IdentityState, rows: int) -> Tensor:
    """Return the mean gate (B, rows, rows) of all layers in one call, and clear the maps of the state."""
    given = state.maps or []
    sized = [F.interpolate(one[:, None].float(), (rows, rows), mode="bilinear") for one in given]
    given.clear()
    return torch.cat(sized, dim=1).mean(dim=1)

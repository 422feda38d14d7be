"""Encode texts for the UNet and the IMR, with one text encoder or the two of Stable Diffusion XL."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Self, TypeVar

import torch
from torch import Tensor

TextEncoder = tuple[Any, Any]
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_TOKENIZING = threading.RLock()


@dataclass(frozen=True)
class TextStates:
    """Texts as a denoiser takes them: `states` (B, T, D) for its attention, and `pooled` (B, P).

    P is 0 for a denoiser that reads no pooled text, such as the UNets of Stable Diffusion 1.x and 2.x.
    """

    states: Tensor
    pooled: Tensor

    def to(self, *arguments: Any, **keywords: Any) -> Self:
        """Return both tensors moved and cast as `Tensor.to` does."""
        return type(self)(self.states.to(*arguments, **keywords), self.pooled.to(*arguments, **keywords))


def tokenizing(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Return a function that calls tokenizers, for one thread at a time.

    A tokenizer keeps the padding and truncation of a call in itself until it has read the text: of two threads, one
    would get those of the other, and so other text states.
    """

    @functools.wraps(function)
    def alone(*arguments: _Given.args, **keywords: _Given.kwargs) -> _Result:
        with _TOKENIZING:
            return function(*arguments, **keywords)

    return alone


@tokenizing
def encode_text(
    texts: Sequence[TextEncoder], prompts: Sequence[str], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the states (B, 77, D) for the UNet's cross-attention, and the pooled text (B, D).

    `texts`: pairs of tokenizer and text model. One model (Stable Diffusion 1.x, 2.x) gives its last states and its
    pooler output. Two (XL) are concatenated: the penultimate states of both, and the pooler output of the first with
    the projected text of the second. `device`: where offloaded models run; by default their own device.
    """
    states, pooled = [], []
    for tokenizer, model in texts:
        inputs = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        where = model.device if device is None else device
        mask = inputs.attention_mask.to(where)
        masked = getattr(model.config, "use_attention_mask", False)
        several = len(texts) > 1
        out = model(inputs.input_ids.to(where), attention_mask=mask if masked else None, output_hidden_states=several)
        states.append(out.hidden_states[-2] if several else out.last_hidden_state)
        projected = getattr(out, "text_embeds", None)
        pooled.append(out.pooler_output if projected is None else projected)
    return torch.cat(states, dim=-1), torch.cat(pooled, dim=-1)


@tokenizing
def encode_joint_text(
    clip: TextEncoder, second: TextEncoder | None, prompts: Sequence[str], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the states (B, T, D) for the joint attention of FLUX.1, and CLIP's pooled text (B, P).

    The states are those of the T5 encoder `second`, without a mask, of at most 512 tokens; without it, CLIP's.
    """
    states, pooled = encode_text((clip,), prompts, device)
    if second is None:
        return states, pooled
    tokenizer, model = second
    length = joint_text_length(tokenizer)
    inputs = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return model(inputs.input_ids.to(model.device if device is None else device))[0], pooled


def joint_text_length(tokenizer: Any) -> int:
    """Return how many tokens of a text the joint attention of FLUX.1 reads."""
    return min(int(tokenizer.model_max_length), 512)


@tokenizing
def cut_text(tokenizer: Any, prompt: str) -> str:
    """Return the end of `prompt` that `encode_text` cuts off; "" where it is short enough."""
    # The last token of a text that fits is the mark of its end.
    ids = tokenizer(prompt, truncation=False).input_ids
    return (
        str(tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1])) if len(ids) > tokenizer.model_max_length else ""
    )

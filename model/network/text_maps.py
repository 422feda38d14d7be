"""Maps of where attention looks for words of the text: they say where in the picture a layer places them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Form = Literal["ours", "published"]
# Tokens of a text: with as many keys, none is missing, and nothing is read from the device.
_TEXT = 77


@dataclass
class TextMaps:
    """Collects the attention of some layers to the tokens `places` (B, R) int64 during one UNet call.

    `layers`: the processors whose maps are wanted (see `layers_of`). `found` gets one map (B, heads, N, R) float32 for
    each, in the order of the call: the probabilities over all keys, of which those of the tokens are taken. Tokens
    below 0 give the map of the first key.
    """

    places: Tensor
    layers: frozenset[int]
    found: list[Tensor] = field(default_factory=list)

    def collect(self, processor: Any, query: Tensor, key: Tensor) -> None:
        """Append the map of a layer, if it is wanted; `query` (B, heads, N, d), `key` (B, heads, K, d).

        Raise ValueError where there is no key at a token's number, as in self-attention of few positions.
        """
        if id(processor) not in self.layers:
            return
        keys = key.shape[-2]
        if keys < _TEXT and (highest := int(self.places.max())) >= keys:
            raise ValueError(
                f"a word at token {highest} and a self-attention of {keys} positions: the published "
                "form of the localisation loss counts positions by tokens; use the form `ours`, or a larger base"
            )
        with torch.autocast(query.device.type, enabled=False):
            logits = query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
        at = self.places.clamp(min=0)[:, None, None, :].expand(-1, *logits.shape[1:3], -1)
        self.found.append(logits.softmax(dim=-1).gather(-1, at))


def layers_of(processors: Mapping[str, Any], form: Form) -> frozenset[int]:
    """Return the layers whose maps are compared with regions: those below the highest resolution that has attention.

    `processors` are those of a UNet, by name. Where attention has one resolution only, all of them. Of each block,
    `ours` takes the cross-attentions, whose keys are the text's tokens; `published` the self-attentions, as published
    code does by mistake: their keys are positions of the picture. Raise ValueError for a UNet without such layers.
    """
    wanted = "attn2" if form == "ours" else "attn1"
    levels = {name: _level(name, processors) for name in processors if wanted in name}
    if not levels:
        raise ValueError(f"a UNet without layers {wanted}: facial parts have no attention to be found in")
    highest = min(levels.values())
    chosen = [name for name, level in levels.items() if level > highest] or list(levels)
    return frozenset(id(processors[name]) for name in chosen)


def _level(name: str, processors: Mapping[str, Any]) -> int:
    """Return how often the picture was halved before a layer, counted from the first block of the UNet."""
    blocks = [int(found[1]) for other in processors if (found := re.search(r"(?:down|up)_blocks\.(\d+)", other))]
    last = max(blocks, default=0)
    found = re.search(r"(down|up)_blocks\.(\d+)", name)
    if found is None:
        return last
    return int(found[2]) if found[1] == "down" else last - int(found[2])

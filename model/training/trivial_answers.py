"""What the IMR has to beat on people of no training set: copying the source, and the person's mean token.

Landmarks are always templates moved to the source: a held-out person's own would tell what nobody knows in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.adapter import Adapter
from model.training.photos import Photos
from model.training.runtime import Batch

_PEOPLE = 24
_SOURCES = 4


@dataclass(frozen=True)
class Trial(Batch):
    """P sources with T targets each, as `Adapter.reconfigure` takes them, and the tokens it should answer with."""

    tokens: Tensor
    source_landmarks: Tensor
    source_text: Tensor
    target_landmarks: Tensor
    target_text: Tensor
    expected: Tensor

    def answer(self, adapter: Adapter) -> Tensor:
        """Return the IMR's tokens, (P·T, K, D)."""
        return adapter.reconfigure(
            self.tokens, self.source_landmarks, self.source_text, self.target_landmarks, self.target_text
        )


def held_out_trials(data: Any, make: Callable[..., Trial]) -> list[tuple[Trial, Tensor]]:
    """Return for some people a trial and their mean token (1, K, D).

    Up to four evenly spaced photos of a person are sources, each with all other photos as targets.
    """
    photos: Photos = data.photos
    people = [rows for rows in photos.by_person() if len(rows) > 1]
    found = []
    for rows in people[:: max(1, len(people) // _PEOPLE)][:_PEOPLE]:
        sources = rows[np.unique(np.linspace(0, len(rows) - 1, min(_SOURCES, len(rows))).astype(int))]
        targets = np.stack([rows[rows != source] for source in sources])
        trial = make(data, sources, targets, np.ones(targets.shape, bool))
        found.append((trial, data.tokens.tensor(rows).mean(dim=0, keepdim=True)))
    return found


@torch.no_grad()
def compare(adapter: Adapter, trials: Sequence[tuple[Trial, Tensor]], device: torch.device) -> Mapping[str, float]:
    """Return the mean squared error of the IMR and of the two trivial answers, each a mean over people."""
    errors: dict[str, list[float]] = {"imr": [], "copy_source": [], "person_mean": []}
    for trial, mean in trials:
        here = trial.to(device)
        each = len(here.expected) // len(here.tokens)
        answers = {
            "imr": here.answer(adapter).float(),
            "copy_source": here.tokens.repeat_interleave(each, dim=0),
            "person_mean": mean.to(device).expand_as(here.expected),
        }
        for name, answer in answers.items():
            errors[name].append(float((answer - here.expected).square().mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}

"""The two baselines of the IMR on held-out people: the source's own tokens, and the person's mean tokens.

Target landmarks are always templates retargeted to the source: at inference, the true ones are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.adapter import Adapter
from model.training.runtime import Batch

_PEOPLE = 24
_SOURCES = 4


@dataclass(frozen=True)
class ReconfigurationBatch(Batch):
    """P sources with T targets each, as `Adapter.reconfigure` takes them, and the targets' true tokens `expected`."""

    tokens: Tensor
    source_landmarks: Tensor
    source_text: Tensor
    target_landmarks: Tensor
    target_text: Tensor
    expected: Tensor

    def predict(self, adapter: Adapter) -> Tensor:
        """Return the IMR's tokens, (P·T, K, D)."""
        return adapter.reconfigure(
            self.tokens, self.source_landmarks, self.source_text, self.target_landmarks, self.target_text
        )


def baseline_batches(
    data: Any, make_batch: Callable[..., ReconfigurationBatch]
) -> list[tuple[ReconfigurationBatch, Tensor]]:
    """Return a batch and the mean tokens of all photos (1, K, D) for each of up to 24 people with several photos.

    Up to four evenly spaced photos of a person are sources, each with all other photos as targets.
    """
    people = [rows for rows in data.photos.by_person() if len(rows) > 1]
    batches = []
    for rows in people[:: max(1, len(people) // _PEOPLE)][:_PEOPLE]:
        sources = rows[np.unique(np.linspace(0, len(rows) - 1, min(_SOURCES, len(rows))).astype(int))]
        targets = np.stack([rows[rows != source] for source in sources])
        batch = make_batch(data, sources, targets, np.ones(targets.shape, bool))
        batches.append((batch, data.tokens.tensor(rows).mean(dim=0, keepdim=True)))
    return batches


@torch.no_grad()
def compare_with_baselines(
    adapter: Adapter, batches: Sequence[tuple[ReconfigurationBatch, Tensor]], device: torch.device
) -> Mapping[str, float]:
    """Return the mean squared errors of the IMR and of the two baselines, averaged over people."""
    errors: dict[str, list[float]] = {"imr": [], "copy_source": [], "person_mean": []}
    for batch, mean in batches:
        here = batch.to(device)
        answers = {
            "imr": here.predict(adapter).float(),
            "copy_source": here.tokens.repeat_interleave(len(here.expected) // len(here.tokens), dim=0),
            "person_mean": mean.to(device).expand_as(here.expected),
        }
        for name, answer in answers.items():
            errors[name].append(float((answer - here.expected).square().mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}

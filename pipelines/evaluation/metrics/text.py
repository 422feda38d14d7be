"""Does the picture follow the text prompt; features are the text judge's, unit norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def clip_t(pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the cosine (N,) of each picture (N, d) and its own prompt (N, d)."""
    return (pictures * texts).sum(1).astype(float)


def prompt_accuracy(pictures: np.ndarray, choices: Sequence[Sequence[tuple[np.ndarray, int]]]) -> np.ndarray:
    """Return for each picture the share of the things its prompt names that the judge reads from it.

    `choices[n]` has one entry for each thing named: the features (K, d) of the prompt with K values of it, and the
    index of the asked one. It counts as read where the asked value wins against all others. NaN where nothing is
    named.
    """
    values = np.full(len(pictures), np.nan)
    for row, (picture, slots) in enumerate(zip(pictures, choices, strict=True)):
        if slots:
            values[row] = float(np.mean([int((texts @ picture).argmax()) == asked for texts, asked in slots]))
    return values

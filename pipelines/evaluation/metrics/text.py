"""Agreement of pictures with their text prompts; features are the text judge's, unit norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def clip_t(pictures: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the cosine (N,) between each picture (N, d) and its own prompt (N, d)."""
    return (pictures * texts).sum(1).astype(float)


def prompt_accuracy(pictures: np.ndarray, choices: Sequence[Sequence[tuple[np.ndarray, int]]]) -> np.ndarray:
    """Return for each picture the share of its prompt's slots that the judge recognises; NaN without slots.

    `choices[n]` has for each slot the features (K, d) of the prompt with each of K values, and the index of the asked
    value; the slot counts as recognised where that value has the largest cosine.
    """
    values = np.full(len(pictures), np.nan)
    for row, (picture, slots) in enumerate(zip(pictures, choices, strict=True)):
        if slots:
            values[row] = float(np.mean([int((texts @ picture).argmax()) == asked for texts, asked in slots]))
    return values

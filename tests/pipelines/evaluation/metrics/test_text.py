from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.metrics.text import clip_t, prompt_accuracy


def test_each_picture_is_compared_with_its_own_prompt() -> None:
    pictures = np.eye(3)[[0, 1]]
    assert clip_t(pictures, np.eye(3)[[0, 2]]).tolist() == [1.0, 0.0]


def test_a_slot_counts_where_its_value_wins_against_all_alternatives() -> None:
    texts = np.eye(4)
    pictures = np.array([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.9, 0.3], [1.0, 0.0, 0.0, 0.0]])
    choices = [[(texts, 0), (texts[2:], 1)], [(texts, 2)], []]
    assert prompt_accuracy(pictures, choices) == pytest.approx([0.5, 1.0, np.nan], nan_ok=True)

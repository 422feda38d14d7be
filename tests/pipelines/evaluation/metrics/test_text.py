from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.metrics.text import clip_t, prompt_accuracy


def test_each_picture_is_compared_with_its_own_prompt() -> None:
    pictures = np.eye(3)[[0, 1]]
    assert clip_t(pictures, np.eye(3)[[0, 2]]).tolist() == [1.0, 0.0]


def test_a_thing_named_counts_where_it_wins_against_all_alternatives() -> None:
    texts = np.eye(4)
    pictures = np.array([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.9, 0.3]])
    choices = [[(texts, 0), (texts[2:], 1)], [(texts, 2)]]
    assert prompt_accuracy(pictures, choices) == pytest.approx([0.5, 1.0])


def test_a_prompt_that_names_nothing_is_silent() -> None:
    assert np.isnan(prompt_accuracy(np.eye(2)[:1], [[]])).all()

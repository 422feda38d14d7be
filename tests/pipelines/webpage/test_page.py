"""The page's chips, boxes and examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from model.face.face_prompts import EXPRESSIONS, POSES, parse
from pipelines.core.errors import UserError
from pipelines.webpage.box_pad import boxes_of, with_boxes
from pipelines.webpage.examples import draw_examples
from pipelines.webpage.page import face_prompt


def test_two_chips_give_a_valid_face_prompt() -> None:
    for expression in ("", *EXPRESSIONS):
        for pose in ("", *POSES):
            text = face_prompt(expression, pose)
            assert (parse(text).expression or "", parse(text).pose or "") == (expression, pose)


def test_boxes_belong_to_the_people_with_a_photo() -> None:
    left, right = [0, 0, 1, 0.5], [0, 0.5, 1, 1]
    assert boxes_of(with_boxes(()), [0, 1]) is None
    assert boxes_of(with_boxes((left, right)), [0, 1]) == [left, right]
    assert boxes_of(with_boxes((left, right)), [1]) == [right]
    with pytest.raises(UserError, match="person 3: no box"):
        boxes_of(with_boxes((left, right)), [0, 2])
    assert boxes_of("nonsense", [0]) is None


def test_examples_are_drawn_people_and_the_same_every_time(tmp_path: Path) -> None:
    alone, both = draw_examples(tmp_path / "a")
    assert (len(alone.photos), len(both.photos)) == (1, 2)
    assert len(both.boxes) == len(both.expressions) == len(both.poses) == 2
    again = draw_examples(tmp_path / "b")[1]
    assert [photo.read_bytes() for photo in both.photos] == [photo.read_bytes() for photo in again.photos]
    with Image.open(both.photos[0]) as photo:
        assert photo.size == (256, 256)

"""What the page's chips, boxes and examples mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from model.face.face_prompts import EXPRESSIONS, POSES, parse
from pipelines.core.errors import UserError
from pipelines.webpage.box_pad import chosen, with_boxes
from pipelines.webpage.door import fault
from pipelines.webpage.examples import draw_examples
from pipelines.webpage.page import face_prompt


def test_two_chips_are_a_face_prompt_that_is_understood() -> None:
    for expression in ("", *EXPRESSIONS):
        for pose in ("", *POSES):
            text = face_prompt(expression, pose)
            assert (parse(text).expression or "", parse(text).pose or "") == (expression, pose)


def test_boxes_belong_to_the_people_who_are_there() -> None:
    left, right = [0, 0, 1, 0.5], [0, 0.5, 1, 1]
    assert chosen(with_boxes(()), [0, 1]) is None
    assert chosen(with_boxes((left, right)), [0, 1]) == [left, right]
    assert chosen(with_boxes((left, right)), [1]) == [right]
    with pytest.raises(UserError, match="person 3: no box"):
        chosen(with_boxes((left, right)), [0, 2])
    assert chosen("nonsense", [0]) is None


def test_examples_are_drawn_people_and_the_same_every_time(tmp_path: Path) -> None:
    alone, both = draw_examples(tmp_path / "a")
    assert (len(alone.photos), len(both.photos)) == (1, 2)
    assert len(both.boxes) == len(both.expressions) == len(both.poses) == 2
    again = draw_examples(tmp_path / "b")[1]
    assert [photo.read_bytes() for photo in both.photos] == [photo.read_bytes() for photo in again.photos]
    with Image.open(both.photos[0]) as photo:
        assert photo.size == (256, 256)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"data": [{"path": "a.png", "url": "http://127.0.0.1/gradio_api/file=a.png"}]}', None),
        (b"", None),
        (b"{", "not JSON"),
        (b"[" * 100 + b"]" * 100, "nested too deeply"),
        (b'{"data": [{"path": " HTTPS://example.org/a.png"}]}', "addresses are not fetched"),
        (b'{"data": [{"path": "a", "url": "data:image/png;base64,AAAA"}]}', "addresses are not fetched"),
    ],
)
def test_bodies_are_looked_through(body: bytes, reason: str | None) -> None:
    found = fault(body)
    assert found is None if reason is None else found is not None and reason in found

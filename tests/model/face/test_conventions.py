"""Complete sets of conventions: frozen, typed, unknown names refused; the words of published code."""

from __future__ import annotations

from typing import Any

import pytest

from model.face.conventions import NAMED, OURS, PUBLISHED, Conventions, read_conventions
from model.face.face_prompts import describe_as_published


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": "photo"}, "file: crops: Extra inputs are not permitted"),
        ({"crop": "square"}, "file: crop: Input should be 'aligned' or 'photo'"),
        ({"hair": 1}, "file: hair: Input should be a valid boolean"),
        ({"guidance": "5"}, "file: guidance: Input should be a valid number"),
        ({"identity_scale": float("nan")}, "file: identity_scale: Input should be a finite number"),
        ({"steps": 0}, "file: steps 0: expected at least 1"),
        ({"resolution": 100}, "file: resolution 100: expected a multiple of 8"),
        ({"landmark_points": 106}, "target_landmarks=template: templates are 68 points of aligned faces"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^file: ") as refused:
        read_conventions({**OURS.model_dump(), **changes}, "file")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("values", [None, [], "published", {"crop": "photo"}])
def test_a_set_is_complete(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^file: "):
        read_conventions(values, "file")


def test_a_set_is_read_back_and_cannot_be_changed() -> None:
    for name, one in NAMED.items():
        assert read_conventions(one.model_dump(), name) == one
    with pytest.raises(ValueError, match="frozen"):
        OURS.crop = "photo"  # type: ignore[misc]


def test_all_but_lambda_differ() -> None:
    assert set(PUBLISHED.other_than(OURS)) == set(Conventions.model_fields) - {"identity_scale"}
    assert OURS.are_ours
    assert OURS.with_values({"hair": True}).are_ours
    assert not OURS.with_values({"negative_prompt": "ugly"}).are_ours


def test_published_code_describes_a_source_by_its_angles() -> None:
    assert describe_as_published("happy", "front", 4.0, 3.0) == "in a happy expression, in front view"
    assert describe_as_published("angry", "front", 12.0, 11.0) == "in a anger expression, facing up, in side view"
    assert describe_as_published("fearful", "left", None, -11.0) == "in a fear expression, facing down, in side view"
    assert describe_as_published(None, None) == "in a neutral expression, in front view"

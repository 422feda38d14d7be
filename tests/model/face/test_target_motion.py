"""What can be asked of a face beyond a face prompt, and what contradicts one."""

from __future__ import annotations

import pytest

from model.face.target_motion import TargetMotion, contradiction


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 1.6}, "strength 1.6: expected a number from 0 to 1.5$"),
        ({"strength": -0.1}, "strength -0.1"),
        ({"yaw": 91.0}, "yaw 91: expected a number from -90 to 90 degrees"),
        ({"pitch": -61.0}, "pitch -61: expected a number from -60 to 60 degrees"),
        ({"roll": float("nan")}, "roll nan"),
        ({"yaw": float("inf")}, "yaw inf"),
    ],
)
def test_impossible_values_are_named_with_their_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TargetMotion(**values)


def test_values_beyond_what_an_adapter_knows_are_warned_of() -> None:
    assert TargetMotion(strength=1.0, yaw=-60.0, pitch=10.0).beyond_known() == []
    assert TargetMotion(strength=1.2, yaw=-75.0, pitch=20.0).beyond_known() == [
        "strength 1.2 is beyond what the adapter knows, 0 to 1",
        "yaw -75 is beyond what the adapter knows, -60 to 60 degrees",
        "pitch 20 is beyond what the adapter knows, -10 to 10 degrees",
    ]


def test_a_face_prompt_may_not_contradict_the_motion() -> None:
    assert contradiction("happy", yaw=20.0, driving=False) == ""
    assert contradiction("happy, turned to the left", yaw=None, driving=False) == ""
    assert contradiction(None, yaw=20.0, driving=True) == ""
    assert "names a pose: give one of them" in contradiction("happy, turned to the left", yaw=20.0, driving=False)
    assert "a driving photo and the face prompt 'happy'" in contradiction("happy", yaw=None, driving=True)

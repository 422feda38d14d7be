"""Strength, angles and driving photos of a row, without a server: what is read, and what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.face.target_motion import TargetMotion
from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.serving.csv_rows import read_csv
from pipelines.serving.request import COLUMNS, OPTIONAL, DrawRequest, Reference, read_row
from pipelines.serving.request_guard import read_payload
from pipelines.serving.traces import described

LIMITS = Serve(max_upload_mb=1, max_pixels=10_000, max_people=2, max_rows=2)


def picture(side: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def text(side: int = 100) -> str:
    return base64.b64encode(picture(side)).decode()


def row(people: int = 1, **more: Any) -> dict[str, Any]:
    return {"references": [text()] * people, "prompt": "a photo", **more}


def test_numbers_and_driving_photos_are_those_of_each_person() -> None:
    request = read_row(
        row(2, strength=[0.5, None], yaw=np.array([20, -75.0]), driving=["", text(80)], driving_faces=[0, 2]), LIMITS
    )
    assert request.motions == (TargetMotion(strength=0.5, yaw=20.0), TargetMotion(yaw=-75.0))
    assert request.driving == (None, Reference("driving photo of person 2", picture(80)))
    assert request.drivers == [None, (request.driving[1], 2)]
    assert request.asked == ("strength 0.5, yaw 20", "as a driving photo, yaw -75")
    assert read_row(row(face_prompts=["sad"]), LIMITS).asked == ("sad",)
    assert read_row(row(roll=["-15"]), LIMITS).motions == (TargetMotion(roll=-15.0),)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strength": None, "yaw": [], "driving": None},
        {"strength": [None], "pitch": [""], "driving": [""], "driving_faces": [0]},
        {"yaw": float("nan")},
    ],
)
def test_a_request_without_them_is_as_before(more: dict[str, Any]) -> None:
    request = read_row(row(**more), LIMITS)
    assert request == read_row(row(), LIMITS)
    assert (request.motions, request.driving, request.driving_faces) == ((), (), ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"strength": [1.51]}, "strength 1.51: expected a number from 0 to 1.5"),
        ({"yaw": [-91]}, "yaw -91: expected a number from -90 to 90 degrees"),
        ({"pitch": [float("inf")]}, "pitch: 'inf'; expected a number for each person"),
        ({"roll": [True]}, "roll: 'True'; expected a number"),
        ({"yaw": ["left"]}, "yaw: 'left'; expected a number"),
        ({"yaw": [10**400]}, "yaw: '1000"),
        ({"yaw": 20}, "yaw: int; expected a list"),
        ({"yaw": [1, 2]}, "2 values of yaw for 1 person: give none or one per person"),
        ({"driving": [text(), text()]}, "2 driving photos for 1 person"),
        ({"driving": [text()] * 3}, "driving: 3 photos; at most 2"),
        ({"driving": ["###"]}, "driving photo of person 1: not base64"),
        ({"driving": [base64.b64encode(b"GIF89a no").decode()]}, "driving photo of person 1: no picture in it"),
        ({"driving": [text(120)]}, "driving photo of person 1: 120x120 pixels; at most 10,000"),
        ({"driving": [7]}, "driving photo of person 1: int; expected a picture as base64"),
        ({"driving_faces": [2]}, "driving face 2 of person 1, who has no driving photo"),
        ({"driving": [text()], "driving_faces": [-1]}, "expected a whole number"),
        ({"driving": [text()], "face_prompts": ["happy"]}, "person 1: a driving photo and the face prompt 'happy'"),
        ({"yaw": [5], "face_prompts": ["sad, facing the camera"]}, "person 1: yaw 5 and .* names a pose"),
    ],
)
def test_what_is_wrong_with_them_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_row(row(**more), LIMITS)


def test_versions_of_before_refuse_the_columns_that_they_do_not_have() -> None:
    """What registered versions import as OPTIONAL stays what it was: MLflow drops unknown columns in silence."""
    assert OPTIONAL == (
        "face_prompts",
        "boxes",
        "seed",
        "faces",
        "negative_prompt",
        "width",
        "height",
        "number",
        "sampler",
    )
    payload = {"dataframe_records": [row(strength=[0.5])]}
    with pytest.raises(UserError, match="unknown column strength"):
        read_payload(payload, LIMITS, OPTIONAL)
    assert read_payload(payload, LIMITS, COLUMNS)["dataframe_records"][0]["strength"] == [0.5]
    mixed = read_payload({"dataframe_records": [row(yaw=[5]), row()]}, LIMITS)
    assert [one["yaw"] for one in mixed["dataframe_records"]] == [[5], []]


def test_a_table_holds_them_as_lists_or_for_one_person_as_numbers() -> None:
    table = f'references,prompt,strength,yaw,driving\n{text()},a photo,"[0.5]",-20,{text()}\n'
    (given,) = read_csv(table.encode(), LIMITS)["dataframe_records"]
    request = read_row(given, LIMITS)
    assert request.motions == (TargetMotion(strength=0.5, yaw=-20.0),)
    assert request.driving[0] is not None


def test_a_trace_has_what_was_asked_without_the_photo() -> None:
    request = DrawRequest(
        (Reference("me", b"abc"),), "a photo", motions=(TargetMotion(yaw=0.0),), driving=(Reference("she", b"abcd"),)
    )
    shown = described(request)
    assert shown["motions"] == [{"yaw": 0.0}]
    assert shown["driving"][0]["bytes"] == 4
    assert b"abcd" not in str(shown).encode()

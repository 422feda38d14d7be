"""What a row may contain, without a server: values just inside and outside each limit, and absent values in pandas."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from benchmarks.malformed_requests import malformed_requests
from pipelines.core.errors import UserError
from pipelines.core.request_guard import parse_json
from pipelines.core.sections.operations import Serve
from pipelines.serving.request import FORMER, OPTIONAL, REQUIRED, DrawRequest, Reference, read_request, read_row
from pipelines.serving.request_guard import read_payload
from tests.pipelines.photos import encoded

pillow_heif.register_heif_opener()

NAMES = (*REQUIRED, *OPTIONAL, "columns", "data", "index", "inputs", "params")
LIMITS = Serve(max_upload_mb=1, max_pixels=10_000, max_people=2, max_rows=2)


def picture(width: int = 100, height: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def row(**more: Any) -> dict[str, Any]:
    return {"references": [base64.b64encode(picture()).decode()], "prompt": "a photo", **more}


def test_a_row_becomes_a_request() -> None:
    boxes = np.array([np.array([0.0, 0.0, 1.0, 0.5])], dtype=object)
    request = read_row(row(face_prompts=np.array(["sad"], dtype=object), boxes=boxes, seed=np.int64(2**40)), LIMITS)
    assert request.references == (("reference 1", picture()),)
    assert request.face_prompts == ("sad",)
    assert request.boxes == ((0.0, 0.0, 1.0, 0.5),)
    assert request.seed == 2**40


def test_references_are_pictures_that_viewers_show() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    plain = Image.new("RGB", (100, 100))
    photos = [encoded(plain, "HEIF"), encoded(plain, "PNG", pnginfo=text)]
    request = read_row(row(references=[base64.b64encode(photo).decode() for photo in photos]), LIMITS)
    assert [reference.photo for reference in request.references] == photos


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_what_is_absent_in_a_frame_is_absent(absent: Any) -> None:
    """A column that only another row has arrives as None or NaN, whole numbers beside it as floats."""
    request = read_row(row(face_prompts=absent, boxes=absent, seed=absent), LIMITS)
    assert (request.face_prompts, request.boxes, request.seed) == ((), (), 0)
    assert read_row(row(seed=3.0), LIMITS).seed == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"references": [base64.b64encode(picture(101, 100)).decode()]}, "reference 1: 101x100 pixels; at most 10,000"),
        ({"references": ["A" * 1_500_000]}, "reference 1: more than 1 MB"),
        ({"references": [base64.b64encode(b"GIF89a").decode()]}, "reference 1: no picture in it"),
        ({"references": row()["references"] * 3}, "references: 3 people; at most 2"),
        ({"prompt": "x" * 2_001}, "prompt: 2001 characters; at most 2000"),
        ({"prompt": "\ud800"}, "prompt: half a character"),
        ({"boxes": [[0, 0, 1, float("nan")]]}, "box 1: expected four numbers"),
        ({"seed": 2**63}, "seed: 9223372036854775808; expected a whole number"),
        ({"seed": True}, "seed: True; expected a whole number"),
        ({"steps": 3}, "unknown column steps"),
    ],
)
def test_what_is_beyond_a_limit_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read_row(row(**change), LIMITS)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"references": ()}, "no reference photo"),
        ({"face_prompts": ("sad", "sad")}, "2 face prompts for 1 person: give none or one per person"),
        ({"face_prompts": ("bored",)}, "face prompt 'bored' names no expression"),
        ({"boxes": ((0, 0, 1, 0.5), (0, 0.5, 1, 1))}, "2 boxes for 1 person"),
        ({"boxes": ((0, 0, 1.5, 1),)}, "box 0,0,1.5,1: expected y0,x0,y1,x1 between 0 and 1"),
        ({"boxes": ((0, 0.5, 1, 0.5),)}, "box 0,0.5,1,0.5: it has no area"),
        ({"scale": float("nan")}, "scale nan: expected a finite number"),
        ({"guidance": float("inf")}, "guidance inf: expected a finite number"),
    ],
)
def test_a_request_cannot_be_made_of_what_cannot_be_drawn(fields: dict[str, Any], reason: str) -> None:
    good = DrawRequest((Reference("me.jpg", picture()),), "a photo", ("",), ((0, 0, 1, 1),))
    with pytest.raises(UserError, match=f"^{re.escape(reason)}"):
        replace(good, **fields)


@pytest.mark.parametrize("shape", ["dataframe_records", "dataframe_split", "inputs", "instances", "columns"])
def test_a_broken_seed_is_seen_before_mlflow_rounds_it(shape: str) -> None:
    def payload(seed: Any) -> bytes:
        one = row(seed=seed)
        tables = {"dataframe_split": {"columns": list(one), "data": [list(one.values())]}}
        tables["columns"] = {name: [value] for name, value in one.items()}
        return json.dumps({"inputs" if shape == "columns" else shape: tables.get(shape, [one])}).encode()

    assert read(payload(7), LIMITS)
    assert read(payload(None), LIMITS)
    for seed, shown in ((1.5, r"1\.5"), (10**4200, "1000"), (-1, "-1")):
        with pytest.raises(UserError, match=f"seed: {shown}.*; expected a whole number"):
            read(payload(seed), LIMITS)


def test_malformed_json_is_refused() -> None:
    """All that is known to be malformed is a UserError here, but for photos that only a face detector can judge."""
    passed, reasons = [], []
    for request in malformed_requests(picture(), 130):
        if (request.content_type or "").split(";")[0] != "application/json":
            continue
        try:
            (table,) = read(request.body, Serve()).values()
            for one in table:
                read_row(one, Serve())
            passed.append(request.what)
        except UserError as error:
            reasons.append(str(error))
    assert all(0 < len(reason) < 600 for reason in reasons)
    assert all(what.startswith("{'references'") or "charset" in what or "parameter" in what for what in passed)
    assert len(passed) <= 6, "photos that only a face detector can judge, and media types, which the guard judges"


def read(body: bytes, limits: Serve) -> dict[str, Any]:
    """Read a body as the guard does."""
    return read_payload(parse_json(body, 20_000), limits)


@pytest.mark.parametrize(
    "form",
    [
        lambda text: "\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        lambda text: "\r\n".join(text[at : at + 64] for at in range(0, len(text), 64)) + "\r\n",
        lambda text: text.translate(str.maketrans("+/", "-_")),
        lambda text: text.rstrip("="),
        lambda text: text.translate(str.maketrans("+/", "-_")).rstrip("="),
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"DATA:image/jpeg;charset=utf-8;BASE64,{text}",
    ],
)
def test_base64_as_programs_write_it(form: Any) -> None:
    for extra in (b"", b"\xfb", b"\xfb\xff"):
        photo = picture() + extra + b"\xff\xfe\xfd" * 40
        request = read_row(row(references=[form(base64.b64encode(photo).decode())]), LIMITS)
        assert request.references[0].photo == photo


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data:image/png,%89PNG", "data: without ;base64"),
        ("data:image/png;base64", "data: without ;base64"),
        ("https://example.org/a.png", "not base64"),
        ("=====", "no picture in it"),
        ("A===", "not base64"),
        ("caf\u00e9", "not base64"),
        ("\ud800", "not base64"),
    ],
)
def test_what_is_no_base64_is_named(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"reference 1: {reason}"):
        read_row(row(references=[text]), LIMITS)


@pytest.mark.parametrize("shape", ["inputs", "instances"])
def test_one_row_and_columns_are_told_apart_by_the_prompt(shape: str) -> None:
    """Whatever the number of people: a row of one and of two references is a row."""
    for people in (1, 2):
        one = row(references=row()["references"] * people, face_prompts=["sad"] * people)
        columns = {name: [value] for name, value in one.items()}
        expected = read_payload({shape: [one]}, LIMITS)
        assert read_payload({shape: one}, LIMITS) == read_payload({shape: columns}, LIMITS) == expected
    two = {name: [value] * 2 for name, value in row().items()}
    assert len(read_payload({shape: two}, LIMITS)["dataframe_records"]) == 2
    with pytest.raises(UserError, match="columns of 2 values each"):
        read_payload({shape: {**two, "references": [["a"]]}}, LIMITS)


def test_what_stands_beside_the_rows_is_named() -> None:
    with pytest.raises(UserError, match="unknown key seed beside inputs"):
        read_payload({"inputs": [row()], "seed": 3}, LIMITS)
    assert read_payload({"inputs": [row()], "params": {}}, LIMITS)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**4200),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner),
    )
)
def test_any_json_is_read_or_named(tree: Any) -> None:
    for payload in (tree, {"inputs": tree}, {"instances": [tree]}, {"dataframe_split": tree}):
        with contextlib.suppress(UserError):
            for one in read_payload(payload, LIMITS)["dataframe_records"]:
                read_row(one, LIMITS)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"steps": 10**6}, "steps: 1000000; expected a number from 1 to 100"),
        ({"steps": 0}, "steps: 0"),
        ({"steps": 2.5}, "steps: 2.5"),
        ({"steps": "50"}, "steps: 50"),
        ({"steps": True}, "steps: True"),
        ({"guidance": -1.0}, "guidance: -1.0"),
        ({"guidance": 10.0**300}, "guidance"),
        ({"scale": float("inf")}, "scale: inf"),
        ({"negative_prompt": "x" * 100_000}, "negative prompt: 100000 characters; at most 2000"),
        ({"negative_prompt": ["x"]}, "negative prompt: list"),
    ],
)
def test_steps_and_texts_of_a_form_are_limited_here_too(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_request([Reference("photo", picture())], {"prompt": "a photo"}, LIMITS, **sampling)


def test_what_a_form_leaves_empty_is_as_in_the_parameters() -> None:
    texts = {"negative_prompt": "", "steps": None, "guidance": float("nan"), "scale": None}
    request = read_request([Reference("photo", picture())], {"prompt": "a photo"}, LIMITS, **texts)
    assert request == DrawRequest((Reference("photo", picture()),), "a photo")
    assert read_request([Reference("photo", picture())], {"prompt": "a"}, LIMITS, steps=7.0).steps == 7


def test_size_number_sampler_and_faces_of_a_row() -> None:
    more = {
        "negative_prompt": "blur",
        "width": np.int64(64),
        "height": 96.0,
        "number": 2,
        "sampler": "dpm",
    }
    request = read_row(row(**more, faces=[2], seed=7), LIMITS)
    assert (request.negative_prompt, request.width, request.height, request.sampler) == ("blur", 64, 96, "dpm")
    assert request.faces == (2,)
    assert [(one.seed, one.number) for one in request.pictures()] == [(7, 1), (8, 1)]
    # Of a table of rows, others have what this one does not.
    nothing = {"negative_prompt": "", "width": 0, "height": float("nan"), "number": 0, "sampler": "", "faces": [0]}
    plain = read_row(row(**nothing), LIMITS)
    assert plain == read_row(row(), LIMITS)


def test_a_list_of_references_is_one_person() -> None:
    (photo,) = row()["references"]
    given = {"references": [[photo, photo], photo], "face_prompts": ["sad", ""], "faces": [[0, 2], 0]}
    request = read_row(row() | given, LIMITS)
    assert [[(one.name, face) for one, face in person] for person in request.people] == [
        [("reference 1 of person 1", None), ("reference 2 of person 1", 2)],
        [("reference 2", None)],
    ]
    # As pandas and MLflow hand lists over.
    arrays = {
        "references": np.array([np.array([photo, photo], object), photo], object),
        "faces": np.array([[0, 2], 0], object),
    }
    assert read_row(row() | given | arrays, LIMITS) == request
    # A number for all of several: each shows one face.
    assert [face for _, face in read_row(row() | given | {"faces": [0, 2]}, LIMITS).people[0]] == [None, None]
    assert read_row(row() | {"references": [[photo]]}, LIMITS).people[0][0][0].photo == picture()


@pytest.mark.parametrize(
    ("references", "more", "message"),
    [
        ([[]], {}, "person 1: 0 references; expected 1 to 8"),
        ([9], {}, "person 1: 9 references; expected 1 to 8"),
        ([2], {"face_prompts": ["sad", "sad"]}, "2 face prompts for 1 person: give none or one per person"),
        ([2], {"faces": [[1]]}, "person 1: 1 face for 2 references; give one per reference"),
        ([2], {"faces": [1]}, "person 1: 1 face for 2 references; give one per reference"),
        ([1, 2], {"faces": [1, [1, "x"]]}, "faces: expected a whole number per reference"),
        ([["text!"]], {}, "reference 1 of person 1: not base64"),
        ([[["nested"]]], {}, "reference 1 of person 1: list; expected a picture as base64 text"),
        ([[3]], {}, "reference 1 of person 1: int; expected a picture as base64 text"),
        ([2, 2, 2], {}, "references: 3 people; at most 2"),
    ],
)
def test_what_is_wrong_with_a_list_of_references_is_named(
    references: list[Any], more: dict[str, Any], message: str
) -> None:
    """Numbers stand for so many good photos of one person."""
    photos = [one if isinstance(one, list) else row()["references"] * one for one in references]
    with pytest.raises(UserError, match=re.escape(message)):
        read_row(row(**more) | {"references": photos}, LIMITS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"width": 90}, "width 90: expected a multiple of 8"),
        ({"width": 2**70}, "width: .*; expected a number from 32 to 4096"),
        ({"height": True}, "height: True"),
        ({"number": 3}, "number: 3; expected a number from 1 to 2"),
        ({"number": 2, "seed": 2**63 - 1}, "number 2: expected at least 1, with seeds from"),
        ({"sampler": "heun"}, "sampler heun: expected one of ddim, dpm, euler, lcm"),
        ({"sampler": 3}, "sampler: int; expected text"),
        ({"faces": [1, 2]}, "2 faces for 1 person"),
        ({"faces": [-1]}, "faces: expected a whole number per reference"),
        ({"faces": 1}, "faces: int; expected a list"),
    ],
)
def test_what_is_wrong_with_them_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_row(row(**more), LIMITS)


def test_versions_of_before_refuse_what_they_would_not_see() -> None:
    payload = {"dataframe_records": [row(width=64)]}
    assert read_payload(payload, LIMITS)["dataframe_records"][0]["width"] == 64
    with pytest.raises(UserError, match=r"unknown column width; expected .*optionally face_prompts, boxes, seed$"):
        read_payload({"dataframe_records": [row(width=64)]}, LIMITS, FORMER)

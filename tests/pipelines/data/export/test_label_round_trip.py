"""Whatever the labels and names of a dataset are, an export and its ingest give every photo the same labels again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.core.params import Params
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.data.export.rows import LABELS, Selection
from pipelines.data.export.run import Inputs, export
from pipelines.data.ingest.label_values import MISSING
from pipelines.data.ingest.photo_files import one_line
from pipelines.data.rights import refusal
from tests.pipelines.photos import dataset_row, write_shards

from .conftest import ingest, photo

PHOTOS = [photo(number) for number in range(4)]
LETTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(LETTERS, min_size=1, max_size=12)
LINES = TEXTS.map(one_line).filter(lambda text: text is not None and text not in MISSING)
WORDS = st.sampled_from(["anna", "11", "11.0", "a.b", "..", "train/anna", "con", "%41", "x\\y", "Jos\u00e9"])
PARTS = st.sampled_from(["a", "b.c", "2023.05.01-0", ".x", "..", "%2e", "A", "metadata", "e\u0301", "1.jpg"]) | LINES
SUFFIXES = st.sampled_from([".jpg", ".JPG", ".txt", ".json", ".csv", "", ".png"])
NAMES = st.tuples(st.lists(PARTS, max_size=2), PARTS, SUFFIXES)
CONSENTS = st.sampled_from(["granted", "no", " Yes ", "0", '{"research": true}', "a\r\nb"])
LABEL_SETS = st.fixed_dictionaries(
    {
        "identity": st.none() | WORDS | LINES.map(normal_name),
        "prompt": st.none() | LINES,
        "face_prompt": st.none() | LINES,
        **{name: st.none() | TEXTS.filter(one_line) for name in ("source", "licence")},
        "consent": st.none() | CONSENTS | TEXTS.filter(str.strip),
    }
)


@pytest.mark.parametrize("layout", ["variface", "webdataset", "huggingface"])
@given(photos=st.lists(st.tuples(NAMES, LABEL_SETS), min_size=1, max_size=len(PHOTOS)))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_label_comes_back(params: Params, layout: str, photos: list) -> None:
    rows = [
        dataset_row("/".join([*folders, base]) + suffix, PHOTOS[number], format="JPEG", **labels)
        for number, ((folders, base, suffix), labels) in enumerate(photos)
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        faces = write_shards(place / "faces", DATASET_SCHEMA, [rows])
        export(layout, Inputs(faces, place / "none"), place / "out", params.export, Selection())
        back = ingest(params, place / "out", place / "back")
    found = {row["image_id"]: {name: row[name] for name in LABELS} for row in back}
    assert found == {row["image_id"]: {name: row[name] for name in LABELS} for row in rows}
    assert [refusal(params.rights, found[row["image_id"]]) for row in rows] == [
        refusal(params.rights, row) for row in rows
    ]

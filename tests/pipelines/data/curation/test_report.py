"""The page reads the thumbnails of the faces that it shows, and no others."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.params import Params
from pipelines.data.curation import report
from pipelines.data.curation.faces import unit_textures
from pipelines.data.curation.records import STATE_SCHEMA, write_rows
from pipelines.data.curation.report import write_report
from pipelines.data.curation.survey import read_thumbnails
from tests.pipelines.data.curation.rows import face_row, make_faces


def test_the_page_shows_the_people_with_most_photos_and_asks_for_what_it_shows(params: Params, tmp_path: Path) -> None:
    rows = [face_row(f"{person}/{photo}.jpg", person, photo) for person in range(3) for photo in range(person + 1)]
    for row in rows:
        row["thumbnail"] = row["file_name"].encode()
    rows.append(dict.fromkeys(face_row("", 0, 0)) | {"key": "none", "file_name": "none.jpg", "n_faces": 0})
    complete = [dict.fromkeys(STATE_SCHEMA.names) | row for row in rows]
    for number in range(2):
        write_rows(pa.Table.from_pylist(complete[number::2], schema=STATE_SCHEMA), tmp_path / f"{number}.parquet")
    faces = make_faces(rows)
    selected = faces.rows["face_index"].notna()
    faces.rows.loc[selected, "identity"] = [f"p{name[0]}" for name in faces.rows.loc[selected, "file_name"]]
    faces.rows.loc[selected, "selected_file"] = faces.rows.loc[selected, "file_name"]
    faces.leave_out(~selected.to_numpy(), "no_face")
    asked: list[set[tuple[str, int]]] = []

    def thumbnails(wanted: set[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        asked.append(wanted)
        return read_thumbnails(tmp_path, wanted)

    page = write_report(faces, faces.table(), params.curate, similarity=0.5, doubtful=None, thumbnails=thumbnails)
    assert asked == [{(row["file_name"], 0) for row in rows[:-1]}]
    for row in rows[:-1]:
        assert f"base64,{base64.b64encode(row['thumbnail']).decode()}" in page
    assert page.index("<h3>p2 ") < page.index("<h3>p1 ") < page.index("<h3>p0 ")
    assert "<h3>no_face <small>1:" in page
    assert "none.jpg" in page


def test_only_some_people_are_shown(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = make_faces([face_row(f"{person}/0.jpg", person, 0) for person in range(3)])
    faces.rows["identity"] = faces.rows["selected_file"] = ["p0", "p1", "p2"]
    monkeypatch.setattr(report, "_PEOPLE", 2)
    page = write_report(faces, faces.table(), params.curate, similarity=0.5, doubtful=None, thumbnails=lambda _: {})
    assert "Only the 2 people with most photos are shown" in page
    assert "<b>3</b>people selected" in page
    assert "<h3>p2 " not in page


def test_textures_have_zero_mean_and_unit_norm() -> None:
    textures = np.random.default_rng(0).integers(0, 255, (5, 256), np.uint8)
    textures[4] = 0
    unit = unit_textures(textures)
    assert np.allclose(unit.mean(1), 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(unit, axis=1), [1, 1, 1, 1, 0])

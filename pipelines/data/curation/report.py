"""Render the page for checking a curated set: contact sheets, and every photo left out with its reason."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.face.face_prompts import EXPRESSIONS, POSES, pose_of_yaw
from pipelines.core.pages import render_page
from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.records import REASONS

# A larger page would not open in a browser; `faces.parquet` has all rows.
_PEOPLE, _FACES_A_REASON, _LISTED = 100, 60, 5000


def write_report(
    faces: Faces,
    table: pa.Table,
    params: Curate,
    *,
    similarity: float,
    doubtful: float | None,
    thumbnails: Callable[[set[tuple[str, int]]], dict[tuple[str, int], bytes]],
) -> str:
    """Return the page as self-contained HTML; `table` has the rows of `faces.parquet`, grouped with `similarity`.

    Selected faces with a score of less than `doubtful` are shown apart. `thumbnails` returns the JPEG of faces by file
    name and index, and is asked once, for those that the page shows.
    """
    absent = table.filter(pc.not_equal(table["status"], "selected"))
    people, count = _people(faces)
    disputed = np.flatnonzero((faces.rows["reason"] == "label_disputed").to_numpy())
    shown: dict[str, Any] = {
        "people": people,
        "disputed": _tiles(faces, disputed, _LISTED),
        "doubtful": _doubtful(faces, doubtful),
        "reasons": _reasons(faces, absent["reason"]),
    }
    _add_pictures(shown, thumbnails)
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        counts={
            "photos": len(pc.unique(table["file_name"])),
            "faces": len(table) - table["face_index"].null_count,
            "selected": len(table) - len(absent),
            "people": count,
        },
        params=params.model_dump(),
        similarity=similarity,
        grid=_grid(faces),
        expressions=[*EXPRESSIONS, "unknown"],
        poses=[pose.replace("_", " ") for pose in POSES],
        absent=absent.drop_columns(["bbox"]).slice(0, _LISTED).to_pylist(),
        absent_count=len(absent),
        **shown,
    )


def _add_pictures(shown: dict[str, Any], thumbnails: Callable[[set[tuple[str, int]]], Any]) -> None:
    tiles = [*shown["disputed"], *shown["doubtful"]]
    tiles += [tile for group in (*shown["people"], *shown["reasons"]) for tile in group["tiles"]]
    found = thumbnails({tile["face"] for tile in tiles})
    for tile in tiles:
        encoded = base64.b64encode(found.get(tile["face"], b"")).decode("ascii")
        tile["image"] = f"data:image/jpeg;base64,{encoded}"


def _doubtful(faces: Faces, bound: float | None) -> list[dict[str, Any]]:
    scores = faces.rows["det_score"].where(faces.rows["selected_file"].notna())
    low = np.flatnonzero((scores < (0.0 if bound is None else bound)).to_numpy())
    return [_tile(faces, int(row), f"score {scores[row]:.2f}") for row in low[:_LISTED]]


def _people(faces: Faces) -> tuple[list[dict[str, Any]], int]:
    """Return the people with most selected photos, and the number of all who have some."""
    rows = faces.rows
    selected = rows[rows["selected_file"].notna()]
    counts = sorted(selected.groupby("identity").size().items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [name for name, _ in counts[:_PEOPLE]]
    found = rows[rows["identity"].isin(shown)].groupby("identity").size()
    parts = dict(iter(selected[selected["identity"].isin(shown)].groupby("identity")))
    people = [
        {
            "name": name,
            "selected": len(parts[name]),
            "found": int(found[name]),
            "similarity": f"{parts[name]['similarity'].mean():.2f}",
            "tiles": [_tile(faces, row, rows.at[row, "face_prompt"] or "") for row in parts[name].index],
        }
        for name in shown
    ]
    return people, len(counts)


def _grid(faces: Faces) -> list[list[int]]:
    """Return the number of selected photos per expression (rows, the last: unknown) and pose (columns)."""
    counts = [[0] * len(POSES) for _ in range(len(EXPRESSIONS) + 1)]
    selected = faces.rows[faces.rows["selected_file"].notna()]
    for expression, yaw in zip(selected["expression"], selected["yaw"], strict=True):
        row = EXPRESSIONS.index(expression) if expression else len(EXPRESSIONS)
        counts[row][POSES.index(pose_of_yaw(float(yaw)))] += 1
    return counts


def _reasons(faces: Faces, absent: pa.ChunkedArray) -> list[dict[str, Any]]:
    given = faces.rows["reason"].to_numpy(object)
    counts = {item["values"]: item["counts"] for item in absent.value_counts().to_pylist()}
    return [
        {
            "reason": reason,
            "meaning": meaning,
            "count": counts[reason],
            "tiles": _tiles(faces, np.flatnonzero(given == reason), _FACES_A_REASON),
        }
        for reason, meaning in REASONS.items()
        if reason in counts
    ]


def _tiles(faces: Faces, members: np.ndarray, limit: int) -> list[dict[str, Any]]:
    is_face = faces.rows["face_index"].notna().to_numpy()
    shown = members[is_face[members]][:limit].tolist()
    return [_tile(faces, row, faces.rows.at[row, "detail"] or "") for row in shown]


def _tile(faces: Faces, row: int, note: str) -> dict[str, Any]:
    name, index = faces.rows.at[row, "file_name"], int(faces.rows.at[row, "face_index"])
    return {"face": (name, index), "name": f"{name}, face {index}", "note": note}

"""Render the page for checking a curated set: contact sheets, and every photo left out with its reason."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.face.face_prompts import EXPRESSIONS, POSES, pose_of_yaw
from pipelines.core.pages import render_page
from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.records import REASONS

# A larger page would not open in a browser; `faces.parquet` has all rows.
_PEOPLE, _FACES_A_REASON, _LISTED = 100, 60, 5000


def write_report(
    faces: Faces, table: pa.Table, params: Curate, similarity: float, doubtful: float | None = None
) -> str:
    """Return the page as self-contained HTML; `table` has the rows of `faces.parquet`, grouped with `similarity`.

    Selected faces with a score of less than `doubtful` are shown apart.
    """
    rows = table.drop_columns(["bbox"]).to_pylist()
    people = _people(faces)
    absent = [row for row in rows if row["status"] != "selected"]
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        counts={
            "photos": len({row["file_name"] for row in rows}),
            "faces": sum(row["face_index"] is not None for row in rows),
            "selected": len(rows) - len(absent),
            "people": len(people),
        },
        params=params.model_dump(),
        similarity=similarity,
        people=people[:_PEOPLE],
        grid=_grid(faces),
        expressions=[*EXPRESSIONS, "unknown"],
        poses=[pose.replace("_", " ") for pose in POSES],
        disputed=_tiles(faces, np.flatnonzero((faces.rows["reason"] == "label_disputed").to_numpy()), _LISTED),
        doubtful=_doubtful(faces, doubtful),
        reasons=_reasons(faces, absent),
        absent=absent[:_LISTED],
        absent_count=len(absent),
    )


def _doubtful(faces: Faces, bound: float | None) -> list[dict[str, str]]:
    scores = faces.rows["det_score"].where(faces.rows["selected_file"].notna())
    low = np.flatnonzero((scores < (0.0 if bound is None else bound)).to_numpy())
    return [_tile(faces, int(row), f"score {scores[row]:.2f}") for row in low[:_LISTED]]


def _people(faces: Faces) -> list[dict[str, Any]]:
    rows = faces.rows
    selected = rows[rows["selected_file"].notna()]
    people = []
    for name, part in selected.groupby("identity"):
        whole = rows[rows["identity"] == name]
        people.append(
            {
                "name": name,
                "selected": len(part),
                "found": len(whole),
                "similarity": f"{part['similarity'].mean():.2f}",
                "tiles": [_tile(faces, row, rows.at[row, "face_prompt"] or "") for row in part.index],
            }
        )
    return sorted(people, key=lambda person: (-person["selected"], person["name"]))


def _grid(faces: Faces) -> list[list[int]]:
    """Return the number of selected photos per expression (rows, the last: unknown) and pose (columns)."""
    counts = [[0] * len(POSES) for _ in range(len(EXPRESSIONS) + 1)]
    selected = faces.rows[faces.rows["selected_file"].notna()]
    for expression, yaw in zip(selected["expression"], selected["yaw"], strict=True):
        row = EXPRESSIONS.index(expression) if expression else len(EXPRESSIONS)
        counts[row][POSES.index(pose_of_yaw(float(yaw)))] += 1
    return counts


def _reasons(faces: Faces, absent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given = faces.rows["reason"].to_numpy(object)
    groups = []
    for reason, meaning in REASONS.items():
        count = sum(row["reason"] == reason for row in absent)
        if count:
            members = np.flatnonzero(given == reason)
            tiles = _tiles(faces, members, _FACES_A_REASON)
            groups.append({"reason": reason, "meaning": meaning, "count": count, "tiles": tiles})
    return groups


def _tiles(faces: Faces, members: np.ndarray, limit: int) -> list[dict[str, str]]:
    shown = [row for row in members.tolist() if faces.thumbnails[row] is not None]
    return [_tile(faces, row, faces.rows.at[row, "detail"] or "") for row in shown[:limit]]


def _tile(faces: Faces, row: int, note: str) -> dict[str, str]:
    encoded = base64.b64encode(faces.thumbnails[row] or b"").decode("ascii")
    name, index = faces.rows.at[row, "file_name"], int(faces.rows.at[row, "face_index"])
    return {"image": f"data:image/jpeg;base64,{encoded}", "name": f"{name}, face {index}", "note": note}

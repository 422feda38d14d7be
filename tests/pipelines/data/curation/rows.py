"""Rows of analysed faces of synthetic people, made without an analyser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.data.curation.faces import Faces
from pipelines.data.curation.records import STATE_SCHEMA


def embedding(person: int, photo: int, spread: float = 0.6) -> np.ndarray:
    """Return a unit vector; two of one person have a cosine of 1 / (1 + spread²) on average."""
    centre = np.random.default_rng(person).normal(size=512) / np.sqrt(512)
    noise = np.random.default_rng([person, photo]).normal(size=512) / np.sqrt(512)
    vector = centre + spread * noise
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def face_row(file_name: str, person: int, photo: int, **changes: Any) -> dict[str, Any]:
    """Return the row of one face, with `changes` of its columns."""
    rng = np.random.default_rng([person, photo, 7])
    row: dict[str, Any] = {
        "key": file_name,
        "file_name": file_name,
        "image_id": file_name,
        "width": 400,
        "height": 300,
        "n_faces": 1,
        "face_index": 0,
        "turned": 0,
        "bbox": [150.0, 80, 250, 220],
        "landmarks": rng.normal(0.5, 0.02, 136).astype(np.float32),
        "det_score": 0.8,
        "side": 100.0,
        "sharpness": 100.0,
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "expression": "neutral",
        "embedding": embedding(person, photo),
        "texture": rng.integers(0, 255, 256, np.uint8).tobytes(),
        "thumbnail": b"",
    }
    return row | changes


def make_faces(rows: list[dict[str, Any]]) -> Faces:
    complete = [dict.fromkeys(STATE_SCHEMA.names) | row for row in rows]
    complete.sort(key=lambda row: (row["file_name"], row["face_index"] or 0))
    return Faces(pa.Table.from_pylist(complete, schema=STATE_SCHEMA))

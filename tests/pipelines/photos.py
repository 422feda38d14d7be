"""Pictures as bytes, rows of a dataset, and the real networks, for tests of several packages."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]


def encoded(picture: Image.Image | np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def dataset_row(name: str, data: bytes, identity: str | None = None, **columns: object) -> Row:
    """Return the row of a photo in `data/faces`; columns that are not given are null."""
    known = {"image_id": hashlib.sha256(data).hexdigest(), "identity": identity, "file_name": name}
    return {**known, "image": data, "n_bytes": len(data), **columns}


def accepted_row(number: int, **columns: object) -> Row:
    """Return an accepted row of `data/processed`, without an image; its vectors are random, seeded by `number`."""
    rng = np.random.default_rng(number)
    embedding = rng.normal(size=512)
    return {
        "image_id": f"{number:064x}",
        "split": "train",
        "status": "ok",
        "bbox": [4.0, 4.0, 28.0, 28.0],
        "keypoints": rng.uniform(8, 24, 10).tolist(),
        "landmarks": rng.uniform(4, 28, 136).tolist(),
        **{"yaw": 0.0, "pitch": 0.0, "roll": -3.0},
        "embedding": (embedding / np.linalg.norm(embedding)).tolist(),
        "expression": "neutral",
        **columns,
    }


def write_shards(
    folder: Path, schema: pa.Schema, shards: Iterable[Sequence[Row]], row_group: int | None = None
) -> Path:
    """Write rows as the Parquet shards of a dataset; columns that a row lacks are null."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, folder / f"shard-{number:05d}.parquet", row_group_size=row_group)
    return folder


def slim_landmarker(shared: Path) -> dict[str, Any]:
    """Return the parameters of a real network of 68 landmarks."""
    path = str(shared / "weights" / "landmarks68" / "slim_160_latest.onnx")
    return {"kind": "onnx", "path": path, "input_size": 160, "channel_order": "bgr"}


def real_networks(shared: Path) -> list[str]:
    """Return overrides of the tiny profile that name real networks."""
    return [
        "preprocess.insightface_name=buffalo_real_mini",
        f"preprocess.insightface_root={shared / 'weights' / 'insightface'}",
        "preprocess.det_sizes=[128]",
        *(f"preprocess.landmarker.{key}={value}" for key, value in slim_landmarker(shared).items()),
        "preprocess.captions.sources=[sidecar]",
    ]


UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored that EXIF orientation 2 to 8 turns upright."""

"""Pictures as bytes, rows of a dataset, and the real networks, as tests of several rooms need them."""

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


def dataset_row(name: str, data: bytes, identity: str | None = None, **said: object) -> Row:
    """Return the row of a photo in `data/faces`; what is not said is null."""
    known = {"image_id": hashlib.sha256(data).hexdigest(), "identity": identity, "file_name": name}
    return {**known, "image": data, "n_bytes": len(data), **said}


def write_shards(
    folder: Path, schema: pa.Schema, shards: Iterable[Sequence[Row]], row_group: int | None = None
) -> Path:
    """Write rows as the Parquet shards of a dataset; columns that a row lacks are null."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, folder / f"shard-{number:05d}.parquet", row_group_size=row_group)
    return folder


def real_networks(shared: Path) -> list[str]:
    """Return real networks as changes of the tiny profile."""
    return [
        "preprocess.insightface_name=buffalo_real_mini",
        f"preprocess.insightface_root={shared / 'weights' / 'insightface'}",
        "preprocess.det_sizes=[128]",
        f"preprocess.landmarker.path={shared / 'weights' / 'landmarks68' / 'slim_160_latest.onnx'}",
        "preprocess.landmarker.input_size=160",
        "preprocess.landmarker.channel_order=bgr",
        "preprocess.captions.sources=[sidecar]",
    ]

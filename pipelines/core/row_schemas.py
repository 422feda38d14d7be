"""Schemas of the two Parquet datasets, and the values of their columns `split`, `status` and `reason`.

`data/faces` has one row per input file. `data/processed` has the same rows, with the results of the analysis.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.formats.rows import check_schema
from pipelines.core.formats.table import DATASET, PROCESSED
from pipelines.core.paths import refuse_pointers

DATASET_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # sha256 of the bytes, hex
        ("identity", pa.string()),
        ("file_name", pa.string()),  # relative; bytes that are not UTF-8 are percent-encoded
        ("image", pa.binary()),  # the bytes of the input file
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("n_bytes", pa.int64()),
        ("prompt", pa.string()),
        ("face_prompt", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("domain", pa.string()),  # what the source states: drawn or photograph
    ]
)

# Comments give the length of lists. Their types have no fixed size: pyarrow 25 writes fixed-size lists with nulls
# (rejected rows), but cannot read them (apache/arrow#35692).
PROCESSED_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("identity", pa.string()),
        ("file_name", pa.string()),
        ("split", pa.string()),  # train, val or test: by identity
        ("status", pa.string()),
        ("reason", pa.string()),
        ("image", pa.binary()),  # JPEG, profile resolution, RGB, EXIF applied; null when rejected
        ("bbox", pa.list_(pa.float32())),  # 4: x0 y0 x1 y1, pixels of `image`
        ("keypoints", pa.list_(pa.float32())),  # 10: 5 x (x, y): eyes, nose tip, mouth corners
        ("landmarks", pa.list_(pa.float32())),  # 136: 68 x (x, y), iBUG order
        ("yaw", pa.float32()),  # degrees, positive to the picture's right
        ("pitch", pa.float32()),  # degrees, positive upwards
        ("roll", pa.float32()),  # degrees, positive clockwise
        ("turned", pa.int32()),  # degrees clockwise by which the photo was turned upright: 0, 90, 180 or 270
        ("embedding", pa.list_(pa.float32())),  # 512: unit norm
        ("det_score", pa.float32()),
        ("n_faces", pa.int32()),
        ("sharpness", pa.float32()),
        ("expression", pa.string()),  # one of model.face.face_prompts.EXPRESSIONS; null: open
        ("expression_confidence", pa.float32()),  # of the likeliest expression, also of one that stayed open
        ("expression_source", pa.string()),  # sidecar, clip, or networks with the first digits of their sha256
        ("pose", pa.string()),  # one of model.face.face_prompts.POSES; null: open
        ("pose_spread", pa.float32()),  # degrees of yaw between the networks; null: one estimate
        ("pose_source", pa.string()),  # sidecar, face pack, landmarks, or networks likewise
        ("prompt", pa.string()),
        ("face_prompt", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("domain", pa.string()),  # drawn, photograph or unknown: as stated, else by its pixels
        ("photo_key", pa.string()),  # hex of `photo_keys`; null when rejected
    ]
)

# Columns that came later: in rows of an older format they are read as null.
LATER_COLUMNS: frozenset[str] = frozenset(
    {
        *("turned", "domain", "expression_confidence", "expression_source", "pose", "pose_spread", "pose_source"),
        "photo_key",
    }
)

# The columns of a photo's content that training reads and `photo_keys` hashes.
CONTENT: tuple[str, ...] = ("image", "bbox", "keypoints", "landmarks", "embedding")

OK = "ok"
REJECTED = "rejected"
SPLITS: tuple[str, ...] = ("train", "val", "test")

REASONS: dict[str, str] = {
    "unreadable": "the bytes cannot be decoded as a picture",
    "empty": "the file has no bytes",
    "truncated": "the data ends before the picture is complete",
    "too_small": "the picture or its face is smaller than the profile allows",
    "too_large": "the picture has more pixels than allowed, so it was not decoded",
    "duplicate": "the same bytes occur in an earlier row",
    "no_face": "no face was found",
    "several_faces": "more than one face was found",
    "turned": "the photo is not upright, or seems not to be, and which of two turns is right cannot be decided",
    "blurred": "the face is less sharp than the profile allows",
    "no_caption": "no caption could be made",
    "analyser_failed": "an analyser raised an error on this picture",
}


def photo_keys(rows: pa.RecordBatch | pa.Table) -> list[bytes]:
    """Return for each accepted photo the sha256 (32 bytes) of its columns CONTENT: the photo's key in every cache."""
    if not rows.num_rows:
        return []
    columns = [pc.list_flatten(rows[name]).to_numpy().reshape(rows.num_rows, -1) for name in CONTENT[1:]]
    numbers = np.concatenate(columns, axis=1).astype("<f4")
    return [
        hashlib.sha256(b"".join((image.as_py(), row.tobytes()))).digest()
        for image, row in zip(rows["image"], numbers, strict=True)
    ]


def list_matrix(column: pa.Array | pa.ChunkedArray, width: int, kind: Any = np.float64) -> np.ndarray:
    """Return a column of lists of numbers as (N, width) `kind`; rows that are null or of another length are NaN.

    Beside the matrix, one chunk of the column is in memory.
    """
    matrix = np.full((len(column), width), np.nan, kind)
    at = 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        fits = pc.equal(pc.list_value_length(chunk), width).fill_null(False)
        flat = pc.list_flatten(chunk.filter(fits)).to_numpy(zero_copy_only=False)
        matrix[at : at + len(chunk)][fits.to_numpy(zero_copy_only=False)] = flat.reshape(-1, width)
        at += len(chunk)
    return matrix


def open_rows(folder: Path, schema: pa.Schema) -> ds.Dataset:
    """Return the shards of `folder` as a dataset with at least the columns of `schema`.

    A column that an older format lacks is null. Raises UserError where there is no shard, one cannot be read, a column
    is missing, or a shard is of a newer format.
    """
    shards = sorted(str(path) for path in folder.rglob("*.parquet"))
    if not shards:
        raise UserError(f"{folder}: no Parquet shards found; expected a dataset folder (run the stage that writes it)")
    kind = PROCESSED if schema is PROCESSED_SCHEMA else DATASET
    refuse_pointers(map(Path, shards))
    for file in shards:
        # Not by the dataset, which would keep the metadata of all files: up to 300 bytes a row.
        try:
            own = pq.read_schema(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{file}: damaged: {' '.join(str(error).split())}") from None
        older = check_schema(kind, file, own) < kind.version
        missing = [name for name in schema.names if name not in own.names and not (older and name in LATER_COLUMNS)]
        if missing:
            expected = "expected those of docs/reference/data.md"
            raise UserError(f"{folder}: columns {', '.join(missing)} are missing; {expected}")
    dataset = ds.dataset(shards, format="parquet")
    added = [schema.field(name) for name in schema.names if name in LATER_COLUMNS and name not in dataset.schema.names]
    return dataset.replace_schema(pa.schema([*dataset.schema, *added])) if added else dataset


def count_rows(folder: Path, schema: pa.Schema) -> int:
    """Return the number of rows of a folder; raises as `open_rows`."""
    return sum(pq.read_metadata(file).num_rows for file in open_rows(folder, schema).files)


def read_rows(
    folder: Path, schema: pa.Schema, columns: list[str] | None = None, where: ds.Expression | None = None
) -> pa.Table:
    """Return `columns` (default: all) of the rows that match `where`, in the order of shards; raises as `open_rows`."""
    return open_rows(folder, schema).to_table(columns=columns, filter=where, cache_metadata=False)

"""Read and write files of finished slices (Arrow) and buckets (Parquet); writes are atomic.

A bucket takes a few rows from every slice. Slices are therefore uncompressed Arrow files: a reader maps them and reads
only the rows it needs. From Parquet it would have to read and decompress whole row groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.files import atomic_file
from pipelines.core.formats.rows import stating
from pipelines.core.formats.table import PROCESSED
from pipelines.data.preprocessing.slice_table import HASH

SLICE_SUFFIX = ".arrow"
# Slices mapped at once: the system limits how many files a process may map.
_MAPPED = 1024
# Trainings read a few photos at a time, and nothing less than a row group can be read.
_ROW_GROUP = 64
_LABELS = ("expression", "expression_source", "pose", "pose_source")
_REPEATING = ["identity", "split", "status", "reason", *_LABELS, "prompt", "face_prompt", "domain"]
_TEXTS = ("image_id", "file_name", "source", "licence", "consent", *_REPEATING)


def write_slice(rows: pa.Table, file: Path) -> None:
    """Write the rows of a finished slice; the same rows give the same bytes."""
    with atomic_file(file, shared=True) as part, pa.ipc.new_file(part, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())


def read_slice_file(
    file: Path, *, columns: list[str] | None = None, places: Sequence[int] | np.ndarray | None = None
) -> pa.Table:
    """Return `columns` (default: all) of a slice's rows at `places` (default: all), in the order of `places`."""
    # `take` copies: the caller may delete the file, or keep only a few of very many rows.
    with pa.memory_map(str(file)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all()
        rows = rows if columns is None else rows.select(columns)
        return rows.take(pa.array(np.arange(rows.num_rows) if places is None else places, pa.int64()))


def read_hash_range(files: Sequence[Path], low: int, high: int) -> pa.Table:
    """Return the rows of the slice `files` whose partition hash is in [low, high], in the order of `files`."""
    groups = []
    for start in range(0, len(files), _MAPPED):
        views = [_view(file, low, high) for file in files[start : start + _MAPPED]]
        groups.append(pa.concat_tables(views).combine_chunks())
    return pa.concat_tables(groups).combine_chunks()


def _view(file: Path, low: int, high: int) -> pa.Table:
    # Columns stay mapped after the file is closed.
    with pa.memory_map(str(file)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all()
    hashes = rows[HASH].to_numpy()
    first, last = np.searchsorted(hashes, low, "left"), np.searchsorted(hashes, high, "right")
    return rows.slice(first, last - first)


def write_bucket_file(rows: pa.Table, file: Path) -> None:
    """Write a bucket as Parquet; the same rows give the same bytes."""
    names = rows.schema.names
    rows = rows.replace_schema_metadata(stating(PROCESSED, rows.schema).metadata)
    with atomic_file(file, shared=True) as part:
        pq.write_table(
            rows,
            part,
            row_group_size=_ROW_GROUP,
            # JPEG does not get smaller.
            compression={name: "NONE" if name == "image" else "ZSTD" for name in names},
            use_dictionary=[name for name in _REPEATING if name in names],
            write_statistics=[name for name in names if name in _TEXTS],
        )


def remove_parts(folder: Path) -> None:
    """Delete the unfinished files of killed writers, since they hold faces."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)

"""Read Parquet of a Hugging Face dataset: a column of pictures (`{bytes, path}`, or bytes) and columns of labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.ingest.consistentid import labels_of
from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, is_picture_name, row_name
from pipelines.data.ingest.walk import Entry, classify, each_file

SUFFIX = ".parquet"
# The column of the pictures: the first of these that exists.
PICTURE_COLUMNS: tuple[str, ...] = ("image", "img", "picture", "photo", "jpg", "png")
NO_PICTURES = "Parquet file without a column of pictures"
NO_PARQUET = "not a Parquet file"
BROKEN = "Parquet file that cannot be read to its end; the photos before the fault are rows"
EMPTY = "row without a picture"
_ROWS_AT_ONCE = 16


def picture_column(file: Path) -> str | None:
    """Return the column of a Parquet file that holds pictures, or None; only the footer is read."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return None
    return next(
        (name for name in PICTURE_COLUMNS if name in schema.names and _holds_bytes(schema.field(name).type)), None
    )


def read_parquet(root: Path, only: str | None, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos of every Parquet file under `root` (or of the file `only` in it), in the order of file names.

    A row's name is its column `file_name`, else "<file>/<row>-<name of the picture>". A picture given by its path is
    read only where that is below `root`. Pictures in the file that are larger than `max_bytes` are skipped.
    """
    for item in each_file(root, only):
        if isinstance(item, Skipped):
            yield item
        elif item.relative.lower().endswith(SUFFIX):
            yield from _read_file(root, item, max_bytes)
        elif not is_picture_name(item.relative):  # a picture that a row names by path is yielded with that row
            yield Skipped(row_name(item.relative), NO_PARQUET)


def _read_file(root: Path, item: Entry, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
    prefix = row_name(item.relative)
    column = picture_column(Path(item.path))
    if column is None:
        yield Skipped(prefix, NO_PICTURES)
        return
    try:
        with pq.ParquetFile(item.path, pre_buffer=False) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield _photo(root, f"{prefix}/{number}", row, row.pop(column), max_bytes)
                    number += 1
    except (pa.ArrowException, OSError):
        yield Skipped(prefix, BROKEN)


def _photo(root: Path, place: str, row: dict[str, Any], picture: Any, max_bytes: int) -> FoundPhoto | Skipped:
    data, path = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (picture, None)
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        own = path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else ""
        name = f"{place}-{own}" if own else place
    if data is not None:
        if len(data) > max_bytes:
            return Skipped(name, TOO_BIG)
        return FoundPhoto(name, None, data, len(data), labels_of(row))
    if not isinstance(path, str) or not path:
        return Skipped(name, EMPTY)
    entry = classify(str(root), path)
    if isinstance(entry, Skipped):
        return Skipped(name, entry.reason)
    return FoundPhoto(name, entry.path, None, entry.n_bytes, labels_of(row))


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

"""Read Parquet of a Hugging Face dataset: a column of pictures (`{bytes, path}`, or bytes) and columns of labels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.ingest.contents import BROKEN_SHARD, Members
from pipelines.data.ingest.label_values import labels_of, left_out, normal_entry
from pipelines.data.ingest.parquet_files import FAULTS, Unpacks, batches
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, is_picture_name, row_name
from pipelines.data.ingest.sidecars import beside_shards
from pipelines.data.ingest.walk import Entry, classify, each_file

SUFFIX = ".parquet"
# The column of the pictures: the first of these that exists.
PICTURE_COLUMNS: tuple[str, ...] = ("image", "img", "picture", "photo", "jpg", "png")
NO_PICTURES = "Parquet file without a column of pictures"
NO_PARQUET = "not a Parquet file"
EMPTY = "row without a picture"
_ROWS_AT_ONCE = 16
_LABELS_AT_ONCE = 4096


def columns_of(file: Path) -> dict[str, pa.DataType]:
    """Return the columns of a Parquet file; none where it is another file."""
    try:
        schema = pq.read_schema(file)
    except FAULTS:
        return {}
    return dict(zip(schema.names, schema.types, strict=True))


def picture_column(file: Path) -> str | None:
    """Return the column of a Parquet file that holds pictures, or None; only the footer is read."""
    schema = columns_of(file)
    return next((name for name in PICTURE_COLUMNS if name in schema and _holds_bytes(schema[name])), None)


def by_path(file: Path, column: str) -> bool:
    """Whether the first picture of a Parquet file is given by its path."""
    try:
        first = next(batches(file, [column], 1), None)
        picture = first[0][0].as_py() if first is not None and len(first) else None
    except FAULTS:
        return False
    return isinstance(picture, dict) and picture.get("bytes") is None and bool(picture.get("path"))


def read_parquet(root: Path, only: str | None) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos of every Parquet file under `root` (or of the file `only` in it), in the order of file names.

    A row's name is its column `file_name`, else "<file>/<row>-<name of the picture>".
    """
    for item in each_file(root, only):
        if isinstance(item, Skipped):
            yield item
        elif item.relative.lower().endswith(SUFFIX):
            yield from _rows(item)
        elif not is_picture_name(item.relative):  # a picture that a row names by path is yielded with that row
            yield beside_shards(item, NO_PARQUET)


def _rows(item: Entry) -> Iterator[FoundPhoto | Skipped]:
    prefix = row_name(item.relative)
    column = picture_column(Path(item.path))
    if column is None:
        yield beside_shards(item, NO_PICTURES)
        return
    try:
        labels_only = batches(item.path, _without_bytes(pq.read_schema(item.path), column), _LABELS_AT_ONCE)
        for number, row in enumerate(row for batch in labels_only for row in batch.to_pylist()):
            path = (row.pop(column, None) or {}).get("path")
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                own = path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else ""
                name = f"{prefix}/{number}-{own}" if own else f"{prefix}/{number}"
            labels, problems = labels_of(normal_entry(row))
            yield from (left_out(name, problem, f"{prefix}/{number}") for problem in problems)
            yield FoundPhoto(name, item.path, 0, labels, number)
    except Unpacks as error:
        yield Skipped(prefix, str(error))
    except FAULTS:
        yield Skipped(prefix, BROKEN_SHARD)


def pictures_of(shard: str, root: Path) -> Members:
    """Yield number and reader of the picture of every row; one given by its path must be below `root`."""
    pictures = batches(shard, [str(picture_column(Path(shard)))], _ROWS_AT_ONCE)
    for number, picture in enumerate(picture for batch in pictures for picture in batch[0]):
        yield number, partial(_picture, picture, root)


def _picture(scalar: pa.Scalar, root: Path) -> bytes | Entry | Skipped:
    picture = scalar.as_py()
    data, path = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (picture, None)
    if data is not None:
        return bytes(data)
    return classify(str(root), path) if isinstance(path, str) and path else Skipped("", EMPTY)


def _without_bytes(schema: pa.Schema, column: str) -> list[str]:
    kind = schema.field(column).type
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    return [name for name in schema.names if name != column] + ([f"{column}.path"] if has_path else [])


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

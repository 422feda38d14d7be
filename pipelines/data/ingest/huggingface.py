"""Read Parquet of a Hugging Face dataset: a column of pictures (`{bytes, path}`, or bytes) and columns of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.label_values import labels_of, left_out, normal_entry
from pipelines.data.ingest.parquet_files import FAULTS, Unpacks, batches
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, Unmatched, is_picture_name, row_name
from pipelines.data.ingest.sidecars import beside_shards
from pipelines.data.ingest.walk import Entry, classify, each_file

SUFFIX = ".parquet"
# The column of the pictures: the first of these that exists.
PICTURE_COLUMNS: tuple[str, ...] = ("image", "img", "picture", "photo", "jpg", "png")
NO_PICTURES = "Parquet file without a column of pictures"
NO_PARQUET = "not a Parquet file"
BROKEN = "Parquet file that cannot be read to its end; the photos before the fault are rows"
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


def read_parquet(
    root: Path, only: str | None, max_bytes: int, *, with_pictures: bool = True
) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos of every Parquet file under `root` (or of the file `only` in it), in the order of file names.

    A row's name is its column `file_name`, else "<file>/<row>-<name of the picture>". A picture given by its path is
    read only where that is below `root`. Pictures in the file that are larger than `max_bytes` are skipped. Without
    `with_pictures`, only names and labels are read.
    """
    reader = _Reader(root, max_bytes, with_pictures)
    for item in each_file(root, only):
        if isinstance(item, Skipped):
            yield item
        elif item.relative.lower().endswith(SUFFIX):
            yield from reader.rows(item)
        elif not is_picture_name(item.relative):  # a picture that a row names by path is yielded with that row
            yield beside_shards(item, NO_PARQUET)


@dataclass(frozen=True)
class _Reader:
    """Reads the rows of Parquet files below `root`."""

    root: Path
    max_bytes: int
    with_pictures: bool

    def rows(self, item: Entry) -> Iterator[FoundPhoto | Skipped]:
        prefix = row_name(item.relative)
        column = picture_column(Path(item.path))
        if column is None:
            yield beside_shards(item, NO_PICTURES)
            return
        try:
            number = 0
            columns = None if self.with_pictures else _without_bytes(pq.read_schema(item.path), column)
            for batch in batches(item.path, columns, _ROWS_AT_ONCE if self.with_pictures else _LABELS_AT_ONCE):
                for row in batch.to_pylist():
                    yield from self._photo(f"{prefix}/{number}", row, row.pop(column, None))
                    number += 1
        except Unpacks as error:
            yield Skipped(prefix, str(error))
        except FAULTS:
            yield Skipped(prefix, BROKEN)

    def _photo(self, place: str, row: dict[str, Any], picture: Any) -> Iterator[FoundPhoto | Skipped]:
        data, path = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (picture, None)
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            own = path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else ""
            name = f"{place}-{own}" if own else place
        labels, problems = labels_of(normal_entry(row))
        yield from (left_out(name, problem, place) for problem in problems)
        reason = None
        if not self.with_pictures:
            yield FoundPhoto(name, None, None, 0, labels)
        elif data is not None:
            yield (
                FoundPhoto(name, None, data, len(data), labels)
                if len(data) <= self.max_bytes
                else Skipped(name, TOO_BIG)
            )
        elif not isinstance(path, str) or not path:
            reason = EMPTY
        elif isinstance(entry := classify(str(self.root), path), Skipped):
            reason = entry.reason
        else:
            yield FoundPhoto(name, entry.path, None, entry.n_bytes, labels)
        if reason:
            yield Skipped(name, reason) if labels == Labels() else Unmatched(name, reason, place)


def _without_bytes(schema: pa.Schema, column: str) -> list[str]:
    kind = schema.field(column).type
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    return [name for name in schema.names if name != column] + ([f"{column}.path"] if has_path else [])


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

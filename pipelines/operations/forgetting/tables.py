"""A subject's rows in tables, recognised by their content: Parquet as datasets are, and Arrow as slices are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.files import atomic_file
from pipelines.operations.forgetting.subject import PEOPLE, Subject

PARQUET, ARROW = b"PAR1", b"ARROW1"
_BATCH = 64
_READ = ("image_id", *PEOPLE, "split", "file_name")


@dataclass(frozen=True)
class SubjectRows:
    """The subject's photos in a table, their splits, and whether the table is part of a dataset or derived from it.

    `rows` is their number, `file_names` the names of their photos.
    """

    image_ids: frozenset[str]
    splits: frozenset[str]
    in_dataset: bool
    rows: int = 0
    file_names: frozenset[str] = frozenset()


def rows_in(source: Any, subject: Subject) -> SubjectRows | None:
    """Return the subject's rows in a file (path or open file); None if it is no table or has no `image_id`.

    Reads only the columns that name photo, person and split.
    """
    with _opened(source) as table:
        if table is None or "image_id" not in table.schema.names:
            return None
        names = table.schema.names
        parts = [batch.filter(subject.mask(batch)) for batch in table.batches([one for one in _READ if one in names])]
    values = {
        name: frozenset(value for part in parts if name in names for value in part[name].to_pylist() if value)
        for name in ("image_id", "split", "file_name")
    }
    ids, splits, files = values.values()
    return SubjectRows(ids, splits, "n_bytes" in names, sum(part.num_rows for part in parts), files)


def pieces_in(source: Any, subject: Subject) -> Iterator[bytes]:
    """Yield the pictures, textures and embeddings of the subject's rows in a table."""
    with _opened(source) as table:
        if table is None:
            return
        read = [field.name for field in table.schema if field.name in _READ or _is_content(field)]
        for batch in table.batches(read):
            theirs = batch.filter(subject.mask(batch))
            for field in theirs.schema:
                if _is_content(field):
                    for value in theirs[field.name].drop_null().to_pylist():
                        yield value if isinstance(value, bytes) else np.asarray(value, "<f4").tobytes()


def write_without(source: Any, destination: Path, subject: Subject) -> int:
    """Copy a Parquet table without a subject's rows, in batches; return the number of rows left.

    If no row is left, no file is written. The same table and subject give the same bytes.
    """
    with pq.ParquetFile(source, pre_buffer=False) as file:
        schema = file.schema_arrow
        named = file.read(columns=[name for name in ("image_id", *PEOPLE) if name in schema.names])
        rows = int(pc.sum(pc.invert(subject.mask(named)), min_count=0).as_py())
        if not rows:
            return 0
        with (
            atomic_file(destination) as part,
            pq.ParquetWriter(
                part,
                schema,
                compression={name: "NONE" if name == "image" else "ZSTD" for name in schema.names},
                use_dictionary=[name for name in ("identity", "licence", "consent") if name in schema.names],
                write_statistics=[name for name in schema.names if name != "image"],
            ) as writer,
        ):
            for group in range(file.metadata.num_row_groups):
                batches = file.iter_batches(batch_size=_BATCH, row_groups=[group])
                kept = [batch.filter(pc.invert(subject.mask(batch))) for batch in batches]
                table = pa.Table.from_batches([batch for batch in kept if batch.num_rows], schema=schema)
                if table.num_rows:
                    writer.write_table(table)
        return rows


def is_table(file: Path) -> bool:
    """Whether a file begins as Parquet or Arrow does; False where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(ARROW)).startswith((PARQUET, ARROW))
    except OSError:
        return False


class _Table:
    """An open table of either format."""

    def __init__(self, file: Any, stream: Any = None) -> None:
        self._file, self._stream = file, stream
        self.schema: pa.Schema = file.schema_arrow if stream is None else file.schema

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches."""
        if self._stream is None:
            heavy = any(_is_content(self.schema.field(name)) for name in columns)
            yield from self._file.iter_batches(batch_size=_BATCH if heavy else 4096, columns=columns)
        else:
            for number in range(self._file.num_record_batches):
                yield self._file.get_batch(number).select(columns)

    def close(self) -> None:
        """Close the file."""
        (self._stream or self._file).close()


@contextmanager
def _opened(source: Any) -> Iterator[_Table | None]:
    """Yield the table in a file (path or open file); None where it is none, or is damaged."""
    with ExitStack() as stack:
        stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        start = stream.read(len(ARROW))
        stream.seek(0)
        table = None
        with suppress(pa.ArrowInvalid):
            if start.startswith(PARQUET):
                table = _Table(pq.ParquetFile(stream, pre_buffer=False))
            elif start.startswith(ARROW):
                mapped = pa.memory_map(str(source)) if isinstance(source, Path) else pa.PythonFile(stream, "r")
                table = _Table(pa.ipc.open_file(mapped), mapped)
        if table is not None:
            stack.callback(table.close)
        yield table


def _is_content(field: pa.Field) -> bool:
    """Whether a column holds pictures, textures, embeddings or landmarks."""
    kind = field.type
    lists = pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)
    return lists or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

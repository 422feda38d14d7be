"""A subject's rows in tables, recognised by their content: Parquet as datasets are, and Arrow as slices are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
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
        if table is None or "image_id" not in table.physical_schema.names:
            return None
        names = table.physical_schema.names
        theirs = pa.Table.from_batches(_rows(table, subject, [name for name in _READ if name in names]))
    values = {
        name: frozenset(theirs[name].drop_null().to_pylist()) if name in names else frozenset()
        for name in ("image_id", "split", "file_name")
    }
    ids, splits, files = values.values()
    return SubjectRows(ids, splits, "n_bytes" in names, theirs.num_rows, files)


def names_in(source: Any) -> set[str]:
    """Return the names of the people in a table; none of what is no table."""
    with _opened(source) as table:
        columns = [] if table is None else [name for name in PEOPLE if name in table.physical_schema.names]
        if table is None or not columns:
            return set()
        batches = table.to_batches(columns=columns)
        return {name for rows in batches for column in rows.columns for name in pc.unique(column).to_pylist() if name}


def pieces_in(source: Any, subject: Subject, *, of_others: bool = False) -> Iterator[bytes]:
    """Yield the pictures, textures and embeddings of the subject's rows in a table, or of all others."""
    with _opened(source) as table:
        if table is None:
            return
        content = [field.name for field in table.physical_schema if _is_content(field)]
        read = [name for name in table.physical_schema.names if name in (*_READ, *content)]
        for rows in _rows(table, subject, read, of_others):
            for value in (value for name in content for value in rows[name].drop_null().to_pylist()):
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


def is_damaged(file: Path) -> bool:
    """Whether a file begins as a table and is none, as where its end is missing."""
    if not is_table(file):
        return False
    with _opened(file) as table:
        return table is None


@contextmanager
def _opened(source: Any) -> Iterator[ds.Fragment | None]:
    """Yield the table in a file (path or open file); None where it is none, or is damaged."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as stream:
        start = stream.read(len(ARROW))
        stream.seek(0)
        kind = ds.ParquetFileFormat() if start.startswith(PARQUET) else ds.IpcFileFormat() if start == ARROW else None
        table = kind and kind.make_fragment(pa.PythonFile(stream, "r"))
        try:
            readable = table is not None and table.physical_schema is not None
        except pa.ArrowInvalid:
            readable = False
        yield table if readable else None


def _rows(
    table: ds.Fragment, subject: Subject, columns: list[str], of_others: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the subject's rows, or all others, of each batch of a table."""
    for batch in table.to_batches(columns=columns, batch_size=_BATCH, use_threads=False):
        theirs = subject.mask(batch)
        yield batch.filter(pc.invert(theirs) if of_others else theirs)


def _is_content(field: pa.Field) -> bool:
    """Whether a column holds pictures, textures, embeddings or landmarks."""
    kind = field.type
    lists = pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)
    return lists or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

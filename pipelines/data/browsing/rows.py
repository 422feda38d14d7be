"""Choose rows to show, by a sample of bounded size, and read them.

What may be shown is decided row by row before anything is drawn from them: rows that `rights` refuses, or of people and
photos that were forgotten, are counted and left out, as in `export --permitted`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.words import did_you_mean
from pipelines.data.export.rows import Row, Selection
from pipelines.data.rights import COLUMNS

_KEYS = ("image_id", "identity", *COLUMNS)
_ROWS_AT_ONCE = 8192
# So many values of a column are named in a message.
_FEW = 12
# Rows whose pictures are in memory at once.
_PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class Chosen:
    """`positions`: numbers of the chosen rows over all files, ascending; `of`: how many rows might have been chosen."""

    positions: list[int]
    of: int


def choose(
    files: Sequence[str],
    schema: pa.Schema,
    wanted: Selection,
    *,
    sample: int,
    where: Mapping[str, str] | None = None,
    among: Collection[int] | None = None,
    seed: int = 0,
) -> Chosen:
    """Return at most `sample` rows of Parquet files that `wanted` takes, all of them equally likely.

    `where`: values that columns of text must have ("" for null); `among`: only these row numbers. Raises UserError
    where a column does not exist or holds no text, and where no row has a value, or, without `among`, all of them.
    """
    where = where or {}
    for column in where:
        known = [field.name for field in schema if field.type == pa.string()]
        if column not in known:
            near = did_you_mean(column, known) or f"; there are {', '.join(known)}"
            raise UserError(f"{column}: no column of text{near}")
    only = None if among is None else np.array(sorted(among), np.int64)
    rng = np.random.default_rng(seed)
    # The rows with the largest of one random number each: memory is bounded by `sample`.
    kept: list[tuple[float, int]] = []
    of = start = 0
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            names = [name for name in dict.fromkeys((*_KEYS, *where)) if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
                mask = np.ones(batch.num_rows, bool)
                for column, value in where.items():
                    given = batch[column].fill_null("") if column in names else pa.array([""] * batch.num_rows)
                    mask &= pc.equal(given, value).to_numpy(zero_copy_only=False)
                if only is not None:
                    numbers = np.arange(start, start + batch.num_rows)
                    mask &= np.isin(numbers, only)
                rows = np.flatnonzero(mask)
                draws = rng.random(batch.num_rows)[rows]
                for row, labels, draw in zip(rows, batch.take(pa.array(rows)).to_pylist(), draws, strict=True):
                    if not wanted.takes(labels):
                        continue
                    of += 1
                    add = heapq.heappush if len(kept) < sample else heapq.heappushpop
                    add(kept, (float(draw), start + int(row)))
                start += batch.num_rows
    if where and not of:
        _refuse_values(files, wanted, where)
        if among is None:
            both = " and ".join(f"{column}={value}" for column, value in where.items())
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(wanted.left_out.items()))
            raise UserError(f"{both}: no row to show{f' (not shown: {reasons})' if reasons else ' has all of these'}")
    return Chosen(sorted(number for _, number in kept), of)


def _refuse_values(files: Sequence[str], wanted: Selection, where: Mapping[str, str]) -> None:
    """Raise UserError for a value of `where` that no row has, with the nearest of those that may be shown."""
    asking = replace(wanted, left_out=Counter())
    found: dict[str, dict[str, bool]] = {column: {} for column in where}
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            names = [name for name in dict.fromkeys((*_KEYS, *where)) if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
                for row in batch.to_pylist():
                    shown = asking.takes(row)
                    for column, values in found.items():
                        value = row.get(column) or ""
                        values[value] = values.get(value, False) or shown
    for column, value in where.items():
        if value not in found[column]:
            others = sorted(one for one, may in found[column].items() if may and one)
            some = f"; there are {', '.join(others)}" if len(others) <= _FEW else f"; there are {len(others):,} others"
            raise UserError(f"{column}={value}: no row has this value{did_you_mean(value, others, 3) or some}")


def rows_at(files: Sequence[str], positions: Sequence[int], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows with these numbers (ascending) over all files; columns that a file lacks are None.

    Only row groups that hold one of them are read.
    """
    numbers = np.array(positions, np.int64)
    start = 0
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            names = [name for name in columns if name in opened.schema_arrow.names]
            for group in range(opened.num_row_groups):
                end = start + opened.metadata.row_group(group).num_rows
                here = numbers[(numbers >= start) & (numbers < end)]
                batches = opened.iter_batches(_PICTURES_AT_ONCE, row_groups=[group], columns=names) if len(here) else ()
                at = start
                for batch in batches:
                    inside = here[(here >= at) & (here < at + batch.num_rows)] - at
                    for row in batch.take(pa.array(inside)).to_pylist():
                        yield {**dict.fromkeys(columns), **row}
                    at += batch.num_rows
                start = end


def numbers_of(files: Sequence[str], image_ids: Collection[str]) -> list[int]:
    """Return the number of the first row of each of these photos, ascending."""
    missing = set(image_ids)
    found, start = [], 0
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=["image_id"]):
                for row, image_id in enumerate(batch["image_id"].to_pylist() if missing else ()):
                    if image_id in missing:
                        missing.discard(image_id)
                        found.append(start + row)
                start += batch.num_rows
    return found

"""Find equal photos among the rows of a dataset, and rows that earlier slices hold, by their keys.

Workers read the keys. Those of a large dataset are matched by Spark's SQL engine, which spills to disk, else by Arrow
in the driver; both give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.people import normal_name
from pipelines.data.preprocessing.files import read_slice_file
from pipelines.data.preprocessing.slice_table import ANALYSIS
from pipelines.data.preprocessing.slices import Slice
from pipelines.data.preprocessing.tasks import EarlierRows, Job, Originals, plan_slice
from pipelines.data.spark import collect_rows, data_frame, reported

# The engine's start alone takes 6 s of processor time; Arrow matches a million rows in 2.4 s and 0.5 GB
# (docs/log/scaling.md).
ROWS_IN_DRIVER = 1_000_000
# Slices whose metadata one Spark task reads: a task costs some milliseconds, the metadata of a slice only one.
SLICES_A_TASK = 64
_NAMES = pa.schema([("image_id", pa.string()), ("file_name", pa.string()), ("identity", pa.string())])
# A row is `row` of slice or file `number`: number << 32 | row.
_HERE = pa.schema([("key", pa.string()), ("here", pa.int64())])
_THERE = pa.schema([("key", pa.string()), ("there", pa.int64())])
_ROW_BITS = 32


def find_originals(context: Any, shards: Sequence[Path], in_driver: int = ROWS_IN_DRIVER) -> Originals:
    """Return, for every image id that occurs more than once, file name and identity of the row that keeps it.

    That row is the first by file name, then identity. Datasets of more than `in_driver` rows are matched by Spark.
    """
    few = sum(pq.read_metadata(shard).num_rows for shard in shards) <= in_driver
    with reported("finding duplicates"):
        repeated = (_repeated if few else _repeated_by_spark)(context, [str(shard) for shard in shards])
    originals: dict[str, tuple[str, str]] = {}
    for image_id, *name in zip(*(repeated[column].to_pylist() for column in _NAMES.names), strict=True):
        row = (name[0], name[1])
        originals[image_id] = min(originals.get(image_id, row), row)
    return originals


def _names_of(shard: str) -> pa.Table:
    rows = pq.read_table(shard, columns=_NAMES.names, use_threads=False)
    identities = rows["identity"].combine_chunks().dictionary_encode()
    names = pa.array([normal_name(name) for name in identities.dictionary.to_pylist()], pa.string())
    normal = pc.fill_null(names.take(identities.indices), "")
    return pa.table([rows["image_id"], pc.fill_null(rows["file_name"], ""), normal], schema=_NAMES)


def _repeated(context: Any, shards: Sequence[str]) -> pa.Table:
    """Return the rows whose image id occurs more than once."""
    rows = collect_rows(context, shards, _names_of, _NAMES, len(shards))
    counts = pc.value_counts(rows["image_id"])
    return rows.filter(pc.is_in(rows["image_id"], counts.field("values").filter(pc.greater(counts.field("counts"), 1))))


def _repeated_by_spark(context: Any, shards: Sequence[str]) -> pa.Table:
    rows = data_frame(context, shards, _names_of, _NAMES, len(shards))
    ids = rows.groupBy(rows["image_id"].alias("repeated")).count().where("count > 1")
    return rows.join(ids, rows["image_id"].eqNullSafe(ids["repeated"]), "left_semi").toArrow()


def find_earlier_rows(
    context: Any,
    slices: Sequence[Slice],
    earlier: Sequence[str],
    job: Job,
    originals: Any,
    *,
    in_driver: int = ROWS_IN_DRIVER,
) -> dict[int, EarlierRows]:
    """Return, by index into `slices`, which rows of a slice the `earlier` slice files hold.

    Where a dataset version is cut differently, or has lost or gained rows, only photos without an analysis are then
    analysed. Of several files that hold a row, the first does. Slices of more than `in_driver` rows are matched by
    Spark.
    """

    def wanted(numbered: tuple[int, Slice]) -> pa.Table:
        return _located(numbered[0], pa.array(plan_slice(numbered[1], job, originals.value).keys, pa.string()), _HERE)

    def held(numbered: tuple[int, str]) -> pa.Table:
        try:
            return _located(numbered[0], read_slice_file(Path(numbered[1]), columns=[ANALYSIS])[ANALYSIS], _THERE)
        except (pa.ArrowInvalid, KeyError):
            return _THERE.empty_table()  # truncated when its machine went down, or before the column had this name

    if not slices or not earlier:
        return {}
    match = _matched if sum(piece.rows for piece in slices) <= in_driver else _matched_by_spark
    with reported("finding analysed photos"):
        found = match(context, list(enumerate(slices)), wanted, list(enumerate(earlier)), held).sort_by("here")
    here, there = found["here"].to_numpy(), found["there"].to_numpy()
    numbers, rows = here >> _ROW_BITS, here & (1 << _ROW_BITS) - 1
    files, places = there >> _ROW_BITS, there & (1 << _ROW_BITS) - 1
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return {
        int(numbers[at[0]]): EarlierRows(rows[at], [earlier[file] for file in files[at]], places[at])
        for at in np.split(np.arange(len(here)), starts[1:])
        if len(at)
    }


def _located(number: int, keys: pa.Array | pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
    rows = pa.array((number << _ROW_BITS) + np.arange(len(keys)), pa.int64())
    return pa.table([keys, rows], schema=schema).drop_null()


Read = Callable[[Any], pa.Table]


def _matched(context: Any, slices: Sequence[Any], wanted: Read, files: Sequence[Any], held: Read) -> pa.Table:
    """Return `here` and the least `there` of the rows of `slices` whose key a row of `files` has."""
    here = collect_rows(context, slices, wanted, _HERE, _tasks(slices))
    there = collect_rows(context, files, held, _THERE, _tasks(files))
    there = there.filter(pc.is_in(there["key"], here["key"].combine_chunks()))
    first = there.group_by("key").aggregate([("there", "min")]).rename_columns(_THERE.names)
    return here.join(first, "key", join_type="inner").select(["here", "there"])


def _matched_by_spark(context: Any, slices: Sequence[Any], wanted: Read, files: Sequence[Any], held: Read) -> pa.Table:
    here = data_frame(context, slices, wanted, _HERE, _tasks(slices))
    there = data_frame(context, files, held, _THERE, _tasks(files))
    first = there.groupBy("key").min("there").withColumnRenamed("min(there)", "there")
    return here.join(first, "key").select("here", "there").toArrow()


def _tasks(items: Sequence[Any]) -> int:
    return -(-len(items) // SLICES_A_TASK)

"""Start the Spark jobs of preprocessing from the driver."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.people import normal_name
from pipelines.core.sections.data import Preprocess
from pipelines.data.preprocessing.buckets import Bucket, link_bucket, write_bucket
from pipelines.data.preprocessing.files import read_slice_file
from pipelines.data.preprocessing.slice_table import ANALYSIS
from pipelines.data.preprocessing.slices import Slice
from pipelines.data.preprocessing.tasks import (
    EarlierRows,
    Job,
    Originals,
    SliceReport,
    analyse_slice,
    finished,
    plan_slice,
)
from pipelines.data.preprocessing.worker_analyser import use_own_gpu
from pipelines.data.spark import reported, run_tasks, telling

# Slices whose metadata one Spark task reads: a task costs some milliseconds, the metadata of a slice only one.
_SLICES_A_TASK = 64


def find_originals(context: Any, shards: Sequence[Path]) -> Originals:
    """Return, for every image id that occurs more than once, file name and identity of the row that keeps it.

    That row is the first by file name, then identity. Only metadata columns are read, and each worker first reduces the
    rows of its shard, so that the workers exchange little more than the ids of all photos.
    """
    files = context.parallelize([str(shard) for shard in shards], len(shards))
    repeated = (
        files.flatMap(telling(_rows_by_image))
        .reduceByKey(_earlier, max(1, len(shards) // 4))
        .filter(lambda item: item[1][0] > 1)
    )
    with reported("finding duplicates"):
        return {image_id: first for image_id, (_, first) in repeated.collect()}


def _rows_by_image(shard: str) -> list[tuple[str, tuple[int, tuple[str, str]]]]:
    """Return (image id, (number of its rows, (file name, identity) of the first of them)) for one shard."""
    import pyarrow.parquet as pq

    columns = pq.read_table(shard, columns=["image_id", "file_name", "identity"], use_threads=False).to_pydict()
    first: dict[str, tuple[int, tuple[str, str]]] = {}
    for image_id, file_name, identity in zip(*columns.values(), strict=True):
        row = (1, (file_name, normal_name(identity) or ""))
        first[image_id] = _earlier(first[image_id], row) if image_id in first else row
    return list(first.items())


def _earlier(one: tuple[int, tuple[str, str]], other: tuple[int, tuple[str, str]]) -> tuple[int, tuple[str, str]]:
    return one[0] + other[0], min(one[1], other[1])


def find_finished(context: Any, slices: Sequence[Slice], job: Job, originals: Any) -> list[SliceReport | None]:
    """Return, for every slice, its report where an earlier run finished it, else None."""

    def task(piece: Slice) -> tuple[SliceReport | None, list[str]]:
        damaged: list[str] = []
        return finished(piece, job, originals.value, damaged), damaged

    parts = -(-len(slices) // _SLICES_A_TASK)
    with reported("finding finished photos"):
        found = context.parallelize(list(slices), parts).map(telling(task)).collect()
    for file in (file for _, damaged in found for file in damaged):
        print(f"{file}: damaged, or of another version; its photos are analysed again", file=sys.stderr)
    return [report for report, _ in found]


def find_earlier_rows(
    context: Any, slices: Sequence[Slice], earlier: Sequence[str], job: Job, originals: Any
) -> dict[int, EarlierRows]:
    """Return, by index into `slices`, which rows of a slice the `earlier` slice files hold.

    Where a dataset version is cut differently, or has lost or gained rows, only photos without an analysis are then
    analysed.
    """

    def located(number: int, keys: Sequence[str | None]) -> list[tuple[str, tuple[int, int]]]:
        return [(key, (number, row)) for row, key in enumerate(keys) if key is not None]

    def wanted(numbered: tuple[int, Slice]) -> list[tuple[str, tuple[int, int]]]:
        return located(numbered[0], plan_slice(numbered[1], job, originals.value).keys)

    def held(numbered: tuple[int, str]) -> list[tuple[str, tuple[int, int]]]:
        try:
            return located(numbered[0], read_slice_file(Path(numbered[1]), columns=[ANALYSIS])[ANALYSIS].to_pylist())
        except (pa.ArrowInvalid, KeyError):
            return []  # truncated when its machine went down, or written before the column had this name

    def packed(rows: Iterable[tuple[int, int, int]]) -> bytes:
        return np.array(sorted(rows), np.int64).tobytes()

    if not slices or not earlier:
        return {}
    parts = -(-len(slices) // _SLICES_A_TASK)
    here = context.parallelize(list(enumerate(slices)), parts).flatMap(telling(wanted))
    there = context.parallelize(list(enumerate(earlier)), parts).flatMap(telling(held)).reduceByKey(min, parts)
    both = here.join(there, parts).map(lambda pair: (pair[1][0][0], (pair[1][0][1], *pair[1][1])))
    rows_of: dict[int, EarlierRows] = {}
    with reported("finding analysed photos"):
        packs = both.groupByKey(parts).mapValues(packed).collect()
    for number, rows in packs:
        places, files, there_at = np.frombuffer(rows, np.int64).reshape(-1, 3).T
        rows_of[number] = EarlierRows(places, [earlier[file] for file in files], there_at)
    return rows_of


def analyse_slices(
    context: Any, slices: Sequence[Slice], earlier: dict[int, EarlierRows], job: Job, originals: Any
) -> list[SliceReport]:
    """Have the workers analyse all slices, one task per slice, and return the reports in the order of `slices`."""

    def task(item: tuple[Slice, EarlierRows | None]) -> SliceReport:
        from pyspark import TaskContext

        running = TaskContext.get()
        use_own_gpu(running)
        return analyse_slice(item[0], job, originals.value, item[1], running.attemptNumber() if running else 0)

    if not slices:
        return []
    items = [(piece, earlier.get(number)) for number, piece in enumerate(slices)]
    weights = [piece.rows for piece in slices]
    reports: list[SliceReport] = run_tasks(
        context, items, task, weights=weights, title="analysing photos", unit="photos"
    )
    return reports


def write_buckets(context: Any, buckets: Sequence[Bucket], params: Preprocess, out: Path) -> tuple[int, int]:
    """Link the buckets of earlier runs into `out`, and have the workers write the others, one task each.

    Returns the number of rows in all, and the number of buckets that were written.
    """
    out = out.resolve()
    linked = [link_bucket(bucket, out) for bucket in buckets]
    missing = [bucket for bucket, rows in zip(buckets, linked, strict=True) if rows is None]
    written: list[int] = []
    if missing:
        task = partial(write_bucket, params=params, out=out)
        written = run_tasks(context, missing, task, weights=[1] * len(missing), title="writing buckets", unit="buckets")
    return sum(rows or 0 for rows in linked) + sum(written), len(missing)

"""Start the Spark jobs of preprocessing from the driver."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.core.sections.data import Preprocess
from pipelines.data.preprocessing.buckets import Bucket, link_bucket, write_bucket
from pipelines.data.preprocessing.matches import SLICES_A_TASK
from pipelines.data.preprocessing.slices import Slice
from pipelines.data.preprocessing.tasks import (
    EarlierRows,
    Job,
    SliceReport,
    analyse_slice,
    finished,
)
from pipelines.data.preprocessing.worker_analyser import use_own_gpu
from pipelines.data.spark import reported, run_tasks, telling


def find_finished(context: Any, slices: Sequence[Slice], job: Job, originals: Any) -> list[SliceReport | None]:
    """Return, for every slice, its report where an earlier run finished it, else None."""

    def task(piece: Slice) -> tuple[SliceReport | None, list[str]]:
        damaged: list[str] = []
        return finished(piece, job, originals.value, damaged), damaged

    parts = -(-len(slices) // SLICES_A_TASK)
    with reported("finding finished photos"):
        found = context.parallelize(list(slices), parts).map(telling(task)).collect()
    for file in (file for _, damaged in found for file in damaged):
        print(f"{file}: damaged, or of another version; its photos are analysed again", file=sys.stderr)
    return [report for report, _ in found]


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

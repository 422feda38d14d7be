"""The Spark jobs of preprocessing, seen from the driver."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.params import Preprocess
from pipelines.preprocessing.slices import Slice
from pipelines.preprocessing.work import Job, Originals, SliceReport, look_at_slice, write_bucket
from pipelines.spark import run_tasks


def find_originals(context: Any, shards: Sequence[Path]) -> Originals:
    """Return, for every image id that occurs more than once, file name and identity of the row that keeps it.

    That is the first in the order of file names (of equal ones, of identities). Only metadata columns are read. The
    rows of a shard are reduced where they are read, so that little more than the ids of all photos is exchanged.
    """
    files = context.parallelize([str(shard) for shard in shards], len(shards))
    repeated = files.flatMap(_rows_by_image).reduceByKey(_earlier, max(1, len(shards) // 4)).filter(_is_repeated)
    return {image_id: first for image_id, (_, first) in repeated.collect()}


def _rows_by_image(shard: str) -> list[tuple[str, tuple[int, tuple[str, str]]]]:
    """Return image id → number of rows and the first of them (file name, identity), for one shard."""
    import pyarrow.parquet as pq

    columns = pq.read_table(shard, columns=["image_id", "file_name", "identity"], use_threads=False).to_pydict()
    found: dict[str, tuple[int, tuple[str, str]]] = {}
    for image_id, file_name, identity in zip(*columns.values(), strict=True):
        row = (1, (file_name, identity or ""))
        found[image_id] = _earlier(found[image_id], row) if image_id in found else row
    return list(found.items())


def _earlier(one: tuple[int, tuple[str, str]], other: tuple[int, tuple[str, str]]) -> tuple[int, tuple[str, str]]:
    return one[0] + other[0], min(one[1], other[1])


def _is_repeated(item: tuple[str, tuple[int, tuple[str, str]]]) -> bool:
    return item[1][0] > 1


def look(context: Any, slices: Sequence[Slice], job: Job, originals: Originals) -> list[SliceReport]:
    """Have the workers look at all slices, one task each, and return what became of them, in order."""
    shared = context.broadcast(dict(originals))

    def task(piece: Slice) -> SliceReport:
        return look_at_slice(piece, job, shared.value)

    weights = [piece.rows for piece in slices]
    reports: list[SliceReport] = run_tasks(
        context, slices, task, weights=weights, title="looking at photos", unit="photos"
    )
    for report in reports:
        if report.error:
            raise UserError(report.error)
    return reports


def gather(context: Any, files: Sequence[str], params: Preprocess, out: Path) -> int:
    """Have the workers write all buckets into `out`, one task each; return the number of rows written."""
    task = partial(write_bucket, slices=list(files), params=params, out=out.resolve())
    buckets = range(params.buckets)
    written: list[int] = run_tasks(
        context, buckets, task, weights=[1] * len(buckets), title="writing buckets", unit="buckets"
    )
    return sum(written)

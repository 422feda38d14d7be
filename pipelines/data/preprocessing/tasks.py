"""Analyse a slice in a worker process."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.core.files import mark_used
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import OK, REJECTED
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.record import FaceRecord
from pipelines.data.preprocessing.crashes import CRASH_DETAIL, CrashLog
from pipelines.data.preprocessing.files import SLICE_SUFFIX, read_slice_file, write_slice
from pipelines.data.preprocessing.partition import buckets_of
from pipelines.data.preprocessing.slice_table import GIVEN, HASH, analysis_key, slice_table, sort_rows, with_given
from pipelines.data.preprocessing.slices import Slice, read_slice
from pipelines.data.preprocessing.worker_analyser import worker_analyser

if TYPE_CHECKING:
    from pipelines.data.faces.analysis import Analyser

# image_id of bytes that occur more than once → file name and identity of the row that keeps them.
Originals = Mapping[str, tuple[str, str]]

_BATCH = 32
_METADATA = [*GIVEN, "domain", "prompt", "face_prompt"]


@dataclass(frozen=True)
class SliceReport:
    """Report on a slice: its file, rows by outcome ("ok" or the reason), and how many were analysed in this run.

    `buckets` has a bit for each bucket, set where the slice has rows of it; `reasons` is a hash of the rows' outcomes.
    `seconds` is the time by analysis step (faces.timing), `detail` one message of an analyser that failed.
    """

    file: str
    outcomes: dict[str, int]
    buckets: bytes
    reasons: str
    analysed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    detail: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Job:
    """The settings that all slices of a run share.

    `params` has the paths as the driver resolves them, `given` as they were written: a worker on another machine may
    find its networks by either. `version` is `analyser_version`, `state` the folder of finished slices. `verified`:
    workers compare their own version with `version`, since their files may differ from the driver's.
    """

    params: Preprocess
    version: str
    state: Path
    given: Preprocess | None = None
    verified: bool = False


@dataclass(frozen=True)
class EarlierRows:
    """Rows of a slice that earlier slices hold: `rows` number them here, `places` in the earlier slice `files`."""

    rows: np.ndarray
    files: Sequence[str]
    places: np.ndarray


def finished(piece: Slice, job: Job, originals: Originals, damaged: list[str] | None = None) -> SliceReport | None:
    """Return the report of a slice whose file an earlier run or task wrote, or None where it must be analysed.

    A file that cannot be read is added to `damaged`; it stays until it is replaced, as another run may be writing it.
    """
    file = plan_slice(piece, job, originals).file
    try:
        mark_used(file)
        return _report(file, read_slice_file(file, columns=["reason", HASH]), job)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, KeyError):  # truncated when its machine went down, or of another version
        if damaged is not None:
            damaged.append(str(file))
        return None


def analyse_slice(
    piece: Slice, job: Job, originals: Originals, earlier: EarlierRows | None = None, attempt: int = 0
) -> SliceReport:
    """Analyse the photos of a slice that `earlier` does not hold, and write its rows to `job.state`.

    A slice that is finished there is not analysed again: Spark may repeat a task whose worker died after finishing it.
    `attempt` is the number of workers lost with this slice: from 1 on, photos are analysed one by one, to find one that
    crashes the worker (pipelines.data.preprocessing.crashes).
    """
    return finished(piece, job, originals) or _analyse_slice(piece, job, originals, earlier, attempt)


def _analyse_slice(
    piece: Slice, job: Job, originals: Originals, earlier: EarlierRows | None, attempt: int
) -> SliceReport:
    plan = plan_slice(piece, job, originals)
    old = set() if earlier is None else set(earlier.rows.tolist())
    fresh = [row for row in range(piece.rows) if row not in old]
    analysed = [row for row in fresh if plan.keys[row] is not None]
    found, seconds = _analyse_rows(piece, analysed, plan, job, attempt) if analysed else ({}, {})
    records = [found[row] if row in found else plan.rejected(row, "duplicate") for row in fresh]
    tables = [slice_table(plan.given(fresh), records, [plan.keys[row] for row in fresh])]
    if earlier is not None:
        tables += [with_given(rows, plan.given(here)) for here, rows in _read_earlier(earlier)]
    table = sort_rows(pa.concat_tables(tables))
    write_slice(table, plan.file)
    CrashLog(plan.file).delete()
    detail = next((record.detail for record in records if record.reason == "analyser_failed"), "")
    return replace(_report(plan.file, table, job), analysed=len(analysed), seconds=seconds, detail=detail)


@dataclass(frozen=True)
class Plan:
    """A slice before analysis: metadata columns, analysis keys (None: a duplicate), and the file for its rows."""

    columns: dict[str, list[Any]]
    keys: list[str | None]
    file: Path

    def given(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Return the columns GIVEN of some rows, and what their source states as `domain`."""
        return {name: [self.columns[name][row] for row in rows] for name in (*GIVEN, "domain")}

    def texts(self, rows: Sequence[int]) -> tuple[list[str | None], list[str | None]]:
        """Return prompts and face prompts of some rows."""
        return [self.columns["prompt"][row] for row in rows], [self.columns["face_prompt"][row] for row in rows]

    def rejected(self, row: int, reason: str, detail: str = "") -> FaceRecord:
        """Return the record of a row that is not analysed."""
        prompt, face_prompt = self.columns["prompt"][row], self.columns["face_prompt"][row]
        return FaceRecord(REJECTED, reason, prompt=prompt, face_prompt=face_prompt, detail=detail)


def plan_slice(piece: Slice, job: Job, originals: Originals) -> Plan:
    """Return the plan of a slice; only metadata is read.

    The file is named by a hash of the rows' metadata (with the image ids) and the analyser version: a later run that
    needs the same photos analysed in the same way finds it.
    """
    columns = pa.Table.from_batches(read_slice(piece, _METADATA, piece.rows)).to_pydict()
    columns.setdefault("domain", [None] * piece.rows)  # of a format without it
    # Datasets of earlier versions may hold a name in several forms: one person must not be in two splits.
    columns["identity"] = [normal_name(name) for name in columns["identity"]]
    repeats = [
        originals.get(image_id, (file_name, identity or "")) != (file_name, identity or "")
        for image_id, file_name, identity in zip(
            columns["image_id"], columns["file_name"], columns["identity"], strict=True
        )
    ]
    digest = hashlib.sha256(json.dumps([job.version, columns, repeats], sort_keys=True).encode()).hexdigest()
    inputs = zip(repeats, columns["image_id"], columns["prompt"], columns["face_prompt"], strict=True)
    keys = [None if repeat else analysis_key(job.version, *values) for repeat, *values in inputs]
    return Plan(columns, keys, job.state / f"{digest}{SLICE_SUFFIX}")


def _analyse_rows(
    piece: Slice, rows: Sequence[int], plan: Plan, job: Job, attempt: int
) -> tuple[dict[int, FaceRecord], dict[str, float]]:
    """Return the records of some rows of a slice by row number, and the seconds by step."""
    analyser = worker_analyser(job.params, job.given, job.version if job.verified else None)
    before = dict(analyser.times.seconds)
    crashes = CrashLog(plan.file) if attempt else None
    wanted = set(rows)
    records: dict[int, FaceRecord] = {}
    at = 0
    for batch in read_slice(piece, ["image"], _BATCH):
        here = [row for row in range(at, at + batch.num_rows) if row in wanted]
        photos = [batch["image"][row - at].as_py() or b"" for row in here]
        if crashes is None:
            records.update(zip(here, analyser.analyse(photos, *plan.texts(here)), strict=True))
        else:
            for row, photo in zip(here, photos, strict=True):
                records[row] = _analyse_logged(photo, row, plan, analyser, crashes)
        at += batch.num_rows
    return records, {step: total - before[step] for step, total in analyser.times.seconds.items()}


def _analyse_logged(photo: bytes, row: int, plan: Plan, analyser: Analyser, crashes: CrashLog) -> FaceRecord:
    image_id = plan.columns["image_id"][row]
    if crashes.crashes_workers(image_id):
        return plan.rejected(row, "analyser_failed", CRASH_DETAIL)
    with crashes.analysing(image_id):
        return analyser.analyse([photo], *plan.texts([row]))[0]


def _read_earlier(earlier: EarlierRows) -> Iterator[tuple[list[int], pa.Table]]:
    for file in sorted(set(earlier.files)):
        here = np.array([name == file for name in earlier.files])
        yield earlier.rows[here].tolist(), read_slice_file(Path(file), places=earlier.places[here])


def _report(file: Path, rows: pa.Table, job: Job) -> SliceReport:
    reasons = rows["reason"].to_pylist()
    buckets = np.packbits(buckets_of(rows[HASH].to_numpy(), job.params.buckets)).tobytes()
    digest = hashlib.sha256(json.dumps(reasons).encode()).hexdigest()
    return SliceReport(str(file), dict(Counter(reason or OK for reason in reasons)), buckets, digest)

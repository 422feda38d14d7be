"""What a worker process does: look at a slice, or put a bucket together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.faces.record import FaceRecord
from pipelines.params import Preprocess
from pipelines.preprocessing.partition import bucket_bounds, split_of
from pipelines.preprocessing.rows import GIVEN, HASH, slice_table, write_atomically
from pipelines.preprocessing.slices import Slice, read_slice
from pipelines.records import OK, PROCESSED_SCHEMA, REJECTED

if TYPE_CHECKING:
    from pipelines.faces.analysis import Analyser

# image_id of bytes that occur more than once → file name and identity of the row that keeps them.
Originals = Mapping[str, tuple[str, str]]

_BATCH = 32
_METADATA = [*GIVEN, "prompt", "face_prompt"]
_SLICE_ROW_GROUP, _BUCKET_ROW_GROUP = 64, 256


@dataclass(frozen=True)
class SliceReport:
    """What became of a slice: its file, rows by outcome ("ok" or the reason), whether it was looked at now.

    `detail` is one message of an analyser that failed; `error` is a wrong configuration that ends the run.
    """

    file: str
    outcomes: dict[str, int]
    computed: bool
    detail: str = ""
    error: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Job:
    """What all slices of a run share: parameters (absolute paths), analyser version, folder of finished slices."""

    params: Preprocess
    version: str
    state: Path


def look_at_slice(piece: Slice, job: Job, originals: Originals) -> SliceReport:
    """Look at the photos of a slice and leave its rows in `job.state`; one that lies there already is not looked at.

    Its file is named by a hash of the rows' metadata (image ids among them) and the analyser version, so it is found
    again by whoever needs the same photos looked at in the same way.
    """
    try:
        return _look_at_slice(piece, job, originals)
    except UserError as error:
        return SliceReport("", {}, False, error=str(error))


def _look_at_slice(piece: Slice, job: Job, originals: Originals) -> SliceReport:
    rows = _columns(pa.Table.from_batches(read_slice(piece, _METADATA, piece.rows)))
    repeats = [
        originals.get(image_id, (file_name, identity or "")) != (file_name, identity or "")
        for image_id, file_name, identity in zip(rows["image_id"], rows["file_name"], rows["identity"], strict=True)
    ]
    key = hashlib.sha256(json.dumps([job.version, rows, repeats], sort_keys=True).encode()).hexdigest()
    file = job.state / f"{key}.parquet"
    if file.is_file():
        return SliceReport(str(file), _outcomes(pq.read_table(file, columns=["reason"])["reason"]), False)
    analyser = _analyser(job.params.model_dump_json(by_alias=True))
    records: list[FaceRecord] = []
    for batch in read_slice(piece, ["image", "prompt", "face_prompt"], _BATCH):
        records += _records(batch, repeats[len(records) : len(records) + batch.num_rows], analyser)
    table = slice_table({name: rows[name] for name in GIVEN}, records)
    write_atomically(table, file, _SLICE_ROW_GROUP)
    detail = next((record.detail for record in records if record.reason == "analyser_failed"), "")
    return SliceReport(str(file), _outcomes(table["reason"]), True, detail)


def write_bucket(bucket: int, slices: list[str], params: Preprocess, out: Path) -> int:
    """Gather the rows of a bucket from all slices and write `part-<bucket>.parquet` into `out`; return their number.

    Rows are in the order of identity (unknown last), file name and image id.
    """
    low, high = bucket_bounds(bucket, params.buckets)
    within = (ds.field(HASH) >= low) & (ds.field(HASH) <= high)
    rows = ds.dataset(slices, format="parquet").to_table(filter=within, use_threads=False)
    keys = [(name, "ascending", "at_end") for name in ("identity", "file_name", "image_id")]
    rows = rows.take(pc.sort_indices(rows, sort_keys=keys))
    people = rows["identity"].to_pylist()
    splits = {name: split_of(name, params.test_share, params.val_share) for name in set(people)}
    rows = rows.append_column("split", pa.array([splits[name] for name in people], pa.string()))
    table = rows.select(PROCESSED_SCHEMA.names).cast(PROCESSED_SCHEMA)
    write_atomically(table, out / f"part-{bucket:05d}.parquet", _BUCKET_ROW_GROUP)
    return int(table.num_rows)


def _records(batch: pa.RecordBatch, repeats: list[bool], analyser: Analyser) -> list[FaceRecord]:
    columns = _columns(batch)
    fresh = [row for row, repeat in enumerate(repeats) if not repeat]
    looked = analyser.analyse(
        [columns["image"][row] or b"" for row in fresh],
        [columns["prompt"][row] for row in fresh],
        [columns["face_prompt"][row] for row in fresh],
    )
    records = [
        FaceRecord(REJECTED, "duplicate", prompt=prompt, face_prompt=face_prompt)
        for prompt, face_prompt in zip(columns["prompt"], columns["face_prompt"], strict=True)
    ]
    for row, record in zip(fresh, looked, strict=True):
        records[row] = record
    return records


def _columns(rows: pa.Table | pa.RecordBatch) -> dict[str, list[Any]]:
    return {name: rows.column(name).to_pylist() for name in rows.schema.names}


def _outcomes(reasons: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(reason or OK for reason in reasons.to_pylist()))


@lru_cache(maxsize=1)
def _analyser(params: str) -> Analyser:
    """Load the analysers once a worker process."""
    import cv2

    from pipelines.faces.analysis import load_analyser

    cv2.setNumThreads(1)
    return load_analyser(Preprocess.model_validate_json(params))

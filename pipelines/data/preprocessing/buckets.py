"""Make buckets from slices. A bucket with the rows of an earlier one is a link to it, and nothing is written.

A bucket is linked into the state as well, under a hash of everything that its bytes depend on. Nothing is copied: where
a file system cannot link the two folders, every bucket is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.files import atomic_file, mark_used, sha256
from pipelines.core.formats.table import PROCESSED
from pipelines.core.row_schemas import CONTENT, OK, PROCESSED_SCHEMA, photo_keys
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.version import code_files
from pipelines.data.preprocessing.files import read_hash_range, write_bucket_file
from pipelines.data.preprocessing.partition import bucket_bounds, split_of
from pipelines.data.preprocessing.slice_table import STATED
from pipelines.data.preprocessing.tasks import Job, SliceReport

# In the state.
FOLDER = "buckets"


@dataclass(frozen=True)
class Bucket:
    """A bucket: its number, the slices with rows of it, and its file in the state."""

    number: int
    slices: tuple[str, ...]
    kept: Path

    @property
    def name(self) -> str:
        """Return the name of its file in the output."""
        return f"part-{self.number:05d}.parquet"


def plan_buckets(reports: Sequence[SliceReport], job: Job) -> list[Bucket]:
    """Return all buckets of a dataset version, from the reports of its slices."""
    params = job.params
    slices = sorted({(item.file, item.reasons, item.buckets) for item in reports})
    holds = np.array([np.unpackbits(np.frombuffer(bits, np.uint8), count=params.buckets) for _, _, bits in slices])
    version = _version()
    planned = []
    for number in range(params.buckets):
        here = [slices[row] for row in np.flatnonzero(holds[:, number])]
        read = here or slices[:1]  # of a bucket without a row, any slice has none
        # The outcomes, too: where photos are analysed again, one at which workers died before may be accepted.
        parts = [(Path(file).name, reasons) for file, reasons, _ in here]
        settings = [*bucket_bounds(number, params.buckets), params.test_share, params.val_share]
        digest = hashlib.sha256(json.dumps([version, settings, parts]).encode()).hexdigest()
        planned.append(Bucket(number, tuple(file for file, _, _ in read), job.state / FOLDER / f"{digest}.parquet"))
    return planned


def _version() -> str:
    """Return what the bytes of a bucket depend on, beside its slices and parameters."""
    patterns = ("pipelines/data/preprocessing/*.py", "pipelines/core/row_schemas.py")
    code = [sha256(file) for pattern in patterns for file in code_files(pattern)]
    return f"{PROCESSED.version} {pa.__version__} {code}"


def link_bucket(bucket: Bucket, out: Path) -> int | None:
    """Link the file of an earlier run as that of the bucket in `out`; return its rows, None where there is none."""
    try:
        rows = int(pq.read_metadata(bucket.kept).num_rows)
        mark_used(bucket.kept)
        os.link(bucket.kept, out / bucket.name)
    except pa.ArrowInvalid:
        print(f"{bucket.kept}: damaged; it is written again", file=sys.stderr)
        return None
    except OSError:
        return None  # there is none, or it cannot be linked
    return rows


def write_bucket(bucket: Bucket, params: Preprocess, out: Path) -> int:
    """Write the bucket's file into `out`, and link it into the state; return the number of rows."""
    table, file = _rows_of(bucket, params), out / bucket.name
    write_bucket_file(table, file)
    with suppress(OSError), atomic_file(bucket.kept, shared=True) as part:
        os.link(file, part)
    return int(table.num_rows)


def _rows_of(bucket: Bucket, params: Preprocess) -> pa.Table:
    """Return the rows of a bucket, sorted by identity (unknown last), file name and image id."""
    low, high = bucket_bounds(bucket.number, params.buckets)
    rows = read_hash_range([Path(file) for file in bucket.slices], low, high)
    keys = [(name, "ascending", "at_end") for name in ("identity", "file_name", "image_id")]
    rows = rows.take(pc.sort_indices(rows, sort_keys=keys))
    people = rows["identity"].to_pylist()
    splits = {name: split_of(name, params.test_share, params.val_share) for name in set(people)}
    rows = rows.append_column("split", pa.array([splits[name] for name in people], pa.string()))
    domain = pc.coalesce(rows[STATED], rows["domain"])
    rows = rows.set_column(rows.schema.get_field_index("domain"), "domain", domain)
    accepted = pc.equal(rows["status"], OK)
    found = iter(photo_keys(rows.select(CONTENT).filter(accepted)))
    written = [next(found).hex() if there else None for there in accepted.to_pylist()]
    rows = rows.append_column("photo_key", pa.array(written, pa.string()))
    return rows.select(PROCESSED_SCHEMA.names).cast(PROCESSED_SCHEMA)

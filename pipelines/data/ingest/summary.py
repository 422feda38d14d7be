"""Summarise an ingest: every file of the source is a new row, a known row or a skipped file."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.data.ingest.photo_files import Skipped

_LISTED = 1000


@dataclass(frozen=True)
class Summary:
    """Figures of the whole dataset after an ingest, and of the rows that this ingest added and the files it skipped."""

    layout: str
    rows: int
    new_rows: int
    new_shards: int
    # Photos of this source that the dataset already held, and how many of those now come with other labels.
    known: int
    changed_labels: int
    identities: int
    without_identity: int
    formats: dict[str, int]
    unreadable_headers: int
    duplicates: int
    bytes: int
    skipped: dict[str, int]
    # At most 1,000 files, in the order of reading.
    skipped_files: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Tally:
    """Counts kept while a source is read."""

    known: int = 0
    changed_labels: int = 0
    new_rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_files: list[dict[str, str]] = field(default_factory=list)

    def skip(self, item: Skipped) -> None:
        """Count a skipped file; the first thousand are listed by name."""
        self.skipped[item.reason] += 1
        if len(self.skipped_files) < _LISTED:
            self.skipped_files.append({"file_name": item.file_name, "reason": item.reason})


def summarise(folder: Path, layout: str, tally: Tally, new_shards: int, contents: np.ndarray) -> Summary:
    """Return the summary of the dataset in `folder`; `contents` holds the content key of every row."""
    identities: set[str] = set()
    formats: Counter[str] = Counter()
    rows = without = size = 0
    columns = ["identity", "format", "n_bytes"]
    for batch in open_rows(folder, DATASET_SCHEMA).to_batches(columns=columns):
        rows += batch.num_rows
        without += batch.column("identity").null_count
        identities.update(normal_name(name) for name in pc.unique(batch.column("identity").drop_null()).to_pylist())
        for item in pc.value_counts(batch.column("format")).to_pylist():
            formats[item["values"]] += item["counts"]
        size += pc.sum(batch.column("n_bytes")).as_py() or 0
    unreadable = formats.pop(None, 0)  # type: ignore[call-overload]
    return Summary(
        layout=layout,
        rows=rows,
        new_rows=tally.new_rows,
        new_shards=new_shards,
        known=tally.known,
        changed_labels=tally.changed_labels,
        identities=len(identities),
        without_identity=without,
        formats=dict(sorted(formats.items())),
        unreadable_headers=unreadable,
        duplicates=rows - len(np.unique(contents)),
        bytes=size,
        skipped=dict(sorted(tally.skipped.items())),
        skipped_files=tally.skipped_files,
    )


def print_summary(summary: Summary, folder: Path) -> None:
    """Print the summary to stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{folder} ({summary.layout})", show_header=False)
    lines: list[tuple[str, str]] = [
        ("photos", f"{summary.rows:,} ({summary.new_rows:,} new in {summary.new_shards} shards)"),
        ("bytes", f"{summary.bytes:,}"),
        ("people", f"{summary.identities:,} ({summary.without_identity:,} photos without a name)"),
        ("formats", ", ".join(f"{name} {count:,}" for name, count in summary.formats.items())),
        ("unreadable headers", f"{summary.unreadable_headers:,}"),
        ("repeated photos", f"{summary.duplicates:,}"),
        *((f"left out: {reason}", f"{count:,}") for reason, count in summary.skipped.items()),
    ]
    for line in lines:
        table.add_row(*line)
    console = Console(file=sys.stderr, highlight=False)
    console.print(table)
    if summary.changed_labels:
        console.print(
            f"{summary.changed_labels:,} photos are known with another identity or prompt; their rows keep the labels "
            "they were ingested with (ingest into a new folder to change them)"
        )

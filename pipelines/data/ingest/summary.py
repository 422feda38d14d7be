"""Summarise an ingest: every file of the source is a new row, a known row, joined labels, or named with a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipelines.core.errors import StageFailed
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.screen import say, show
from pipelines.core.sections.data import Rights
from pipelines.core.words import counted
from pipelines.data.ingest.photo_files import Labels, Skipped, Unmatched
from pipelines.data.rights import COLUMNS, photos_refused, refusal

_LISTED = 1000
# Unmatched labels, and reasons, that are printed for people.
_SHOWN = 20


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
    # The photos of this source by the labels that came with them.
    labels: dict[str, int] = field(default_factory=dict)
    # The photos that `rights` does not permit to train on, each counted once, by reason.
    not_permitted: dict[str, int] = field(default_factory=dict)
    # Labels that reach no row: how many by reason, and at most 1,000 of them by name.
    unmatched: dict[str, int] = field(default_factory=dict)
    unmatched_labels: list[dict[str, str]] = field(default_factory=list)


class UnmatchedLabels(StageFailed):
    """Labels of a source could not be joined to its photos, so that nothing was added to the dataset."""

    def __init__(self, summary: Summary) -> None:
        count = sum(summary.unmatched.values())
        shown = "; ".join(_named(item) for item in summary.unmatched_labels[:3])
        labels, more = ("label does", "") if count == 1 else ("labels do", "; …" if count > 3 else "")
        super().__init__(
            f"{count:,} {labels} not reach a row ({shown}{more}); nothing was added. Mend the labels, or go on without "
            "them: --accept-unmatched"
        )
        self.summary = summary


@dataclass
class Tally:
    """Counts kept while a source is read."""

    known: int = 0
    changed_labels: int = 0
    new_rows: int = 0
    new_shards: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_files: list[dict[str, str]] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    unmatched: Counter[str] = field(default_factory=Counter)
    unmatched_labels: list[dict[str, str]] = field(default_factory=list)

    def note(self, labels: Labels) -> None:
        """Count the labels that came with a photo."""
        self.labels.update(each.name for each in fields(labels) if getattr(labels, each.name) is not None)

    def skip(self, item: Skipped) -> None:
        """Count a skipped file or an unmatched label; the first thousand of each are listed by name."""
        if isinstance(item, Unmatched):
            self.unmatched[item.reason] += 1
            if len(self.unmatched_labels) < _LISTED:
                self.unmatched_labels.append({"label": item.label, "file_name": item.file_name, "reason": item.reason})
            return
        self.skipped[item.reason] += 1
        if len(self.skipped_files) < _LISTED:
            self.skipped_files.append({"file_name": item.file_name, "reason": item.reason})


def summarise(folder: Path, layout: str, tally: Tally, contents: np.ndarray, rights: Rights) -> Summary:
    """Return the summary of the dataset in `folder`; `contents` holds the content key of every row, in order."""
    identities: set[str] = set()
    formats: Counter[str] = Counter()
    rows = without = size = 0
    reasons: list[str | None] = []
    refused = cache(lambda *values: refusal(rights, dict(zip(COLUMNS, values, strict=True))))
    columns = ["identity", "format", "n_bytes", *COLUMNS]
    batches = open_rows(folder, DATASET_SCHEMA).to_batches(columns=columns) if len(contents) else ()
    for batch in batches:
        rows += batch.num_rows
        without += batch.column("identity").null_count
        identities.update(normal_name(name) for name in pc.unique(batch.column("identity").drop_null()).to_pylist())
        for item in pc.value_counts(batch.column("format")).to_pylist():
            formats[item["values"]] += item["counts"]
        size += pc.sum(batch.column("n_bytes")).as_py() or 0
        reasons += map(refused, *(batch.column(name).to_pylist() for name in COLUMNS))
    unreadable = formats.pop(None, 0)  # type: ignore[call-overload]
    counts = {name: dict(sorted(getattr(tally, name).items())) for name in ("skipped", "unmatched")}
    return Summary(
        layout=layout,
        rows=rows,
        identities=len(identities),
        without_identity=without,
        formats=dict(sorted(formats.items())),
        unreadable_headers=unreadable,
        duplicates=rows - len(np.unique(contents)),
        bytes=size,
        not_permitted=photos_refused(contents, reasons),
        **{**vars(tally), "labels": dict(tally.labels), **counts},
    )


def print_summary(summary: Summary, folder: Path) -> None:
    """Print the summary to stderr."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{folder} ({summary.layout})"), show_header=False)
    lines: list[tuple[str, str]] = [
        ("photos", f"{summary.rows:,} ({summary.new_rows:,} new in {counted(summary.new_shards, 'shard')})"),
        ("bytes", f"{summary.bytes:,}"),
        ("people", f"{summary.identities:,} ({counted(summary.without_identity, 'photo')} without a name)"),
        ("formats", ", ".join(f"{name} {count:,}" for name, count in summary.formats.items())),
        ("unreadable headers", f"{summary.unreadable_headers:,}"),
        ("repeated photos", f"{summary.duplicates:,}"),
        ("labels joined", ", ".join(f"{name} {count:,}" for name, count in summary.labels.items()) or "none"),
        *((f"not permitted: {reason}", f"{count:,}") for reason, count in summary.not_permitted.items()),
        *((f"label not joined: {reason}", f"{count:,}") for reason, count in [*summary.unmatched.items()][:_SHOWN]),
        *((f"left out: {reason}", f"{count:,}") for reason, count in summary.skipped.items()),
    ]
    for line in lines:
        table.add_row(*map(Text, line))
    show(table)
    for item in summary.unmatched_labels[:_SHOWN]:
        say(f"not joined: {_named(item)}")
    if summary.changed_labels:
        say(
            f"{counted(summary.changed_labels, 'photo')} known with another identity or prompt: the rows keep the "
            "labels that they were ingested with (ingest into a new folder to change them)"
        )


def _named(item: dict[str, str]) -> str:
    """Return an unmatched label in words: file or entry, the photo that it names, and the reason."""
    photo = "" if item["file_name"] == item["label"] else f" of {item['file_name']}"
    return f"{item['label']}{photo}: {item['reason']}"

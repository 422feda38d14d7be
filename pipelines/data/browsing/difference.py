"""Compare the rows of two versions of a dataset: added, removed, and with other labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.core.words import counted
from pipelines.data.export.rows import LABELS, Selection

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_LABELS = (*LABELS, "domain", "file_name")
_BATCH = 8192


@dataclass(frozen=True)
class RowChange:
    """A row of one version or both: its numbers there (None: it is not there), and {label: [before, after]}."""

    image_id: str
    file_name: str
    identity: str | None
    before: int | None
    after: int | None
    labels: dict[str, list[str | None]]


@dataclass(frozen=True)
class Difference:
    """What differs between two versions, of the rows that may be shown; `left_out`: how many others, by reason."""

    rows: tuple[int, int]
    people: tuple[int, int]
    added: list[RowChange]
    removed: list[RowChange]
    changed: list[RowChange]
    people_added: list[str]
    people_removed: list[str]
    left_out: dict[str, int]

    def summary(self) -> list[str]:
        """Return the lines that a person reads: counts, people, and how many rows have which label changed."""
        counts: dict[str, int] = {}
        for change in self.changed:
            for name in change.labels:
                counts[name] = counts.get(name, 0) + 1
        labels = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return [
            f"rows: {self.rows[0]:,} → {self.rows[1]:,}",
            f"people: {self.people[0]:,} → {self.people[1]:,}",
            f"added: {counted(len(self.added), 'row')}{_people('new', self.people_added)}",
            f"removed: {counted(len(self.removed), 'row')}{_people('gone', self.people_removed)}",
            f"changed labels: {counted(len(self.changed), 'row')}" + (f" ({labels})" if labels else ""),
            *([f"not compared: {left_out}"] if left_out else []),
        ]


def compare(before: Sequence[str], after: Sequence[str], wanted: Selection) -> Difference:
    """Compare two versions, given by their Parquet files.

    A row is the same row where the bytes of its photo are the same; of several with the same bytes, where its file name
    is the same, too. Rows that `wanted` does not take are in neither. Rows of files that both versions have are
    counted, and do not differ: memory is that of the other files.
    """
    import pandas as pd

    shared = frozenset(before) & frozenset(after)
    old, rows_old, people_old = _read(before, wanted, shared)
    new, rows_new, people_new = _read(after, wanted, shared)
    same = old.merge(new, on=["image_id", "file_name", "turn"], suffixes=("_old", "_new"))
    # Rows with the same bytes under another name, in their order.
    rest_old = old[~old["row"].isin(same["row_old"])].copy()
    rest_new = new[~new["row"].isin(same["row_new"])].copy()
    for rest in (rest_old, rest_new):
        rest["turn"] = rest.groupby("image_id").cumcount()
    renamed = rest_old.merge(rest_new, on=["image_id", "turn"], suffixes=("_old", "_new"))
    same = same.assign(file_name_old=same["file_name"], file_name_new=same["file_name"])
    both = pd.concat([same.drop(columns="file_name"), renamed]) if len(renamed) else same
    removed = old[~old["row"].isin(both["row_old"])]
    added = new[~new["row"].isin(both["row_new"])]
    return Difference(
        rows=(rows_old, rows_new),
        people=(len(people_old), len(people_new)),
        added=[_change(row, after=row["row"]) for row in added.to_dict("records")],
        removed=[_change(row, before=row["row"]) for row in removed.to_dict("records")],
        changed=_changed(both),
        people_added=sorted(people_new - people_old),
        people_removed=sorted(people_old - people_new),
        left_out=dict(sorted(wanted.left_out.items())),
    )


def _read(files: Sequence[str], wanted: Selection, shared: frozenset[str]) -> tuple[pd.DataFrame, int, set[str]]:
    """Return labels and numbers of the rows that `wanted` takes, and of all files the number of such rows and people.

    Of `shared` files, the rows are counted only. `turn` counts rows of the same bytes and name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["image_id", *dict.fromkeys(_LABELS)]
    kept: list[pa.RecordBatch] = []
    numbers: list[int] = []
    people: set[str] = set()
    start = count = 0
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            names = [name for name in columns if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(_BATCH, columns=names):
                rows = batch.to_pylist()
                taken = [wanted.takes({**dict.fromkeys(columns), **row}) for row in rows]
                people.update(
                    row["identity"] for row, take in zip(rows, taken, strict=True) if take and row["identity"]
                )
                count += sum(taken)
                if file not in shared:
                    kept.append(_of_all(batch, columns).filter(pa.array(taken)))
                    numbers += [start + number for number, take in enumerate(taken) if take]
                start += len(rows)
    schema = pa.schema([(name, pa.string()) for name in columns])
    frame: pd.DataFrame = pa.Table.from_batches(kept, schema).to_pandas(deduplicate_objects=True)
    frame["row"] = numbers
    frame["turn"] = frame.groupby(["image_id", "file_name"], dropna=False).cumcount()
    return frame, count, people


def _of_all(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Return a batch of all columns, text, null where a file has none."""
    import pyarrow as pa

    names = batch.schema.names
    none = pa.nulls(batch.num_rows, pa.string())
    values = [batch.column(name).cast(pa.string()) if name in names else none for name in columns]
    return pa.RecordBatch.from_arrays(values, names=list(columns))


def _changed(both: pd.DataFrame) -> list[RowChange]:
    old, new = (both[[f"{name}_{end}" for name in _LABELS]].fillna("").to_numpy() for end in ("old", "new"))
    changes = []
    for row in both[(old != new).any(axis=1)].sort_values("row_new").to_dict("records"):
        pairs = {name: [_known(row[f"{name}_old"]), _known(row[f"{name}_new"])] for name in _LABELS}
        labels = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        now = {name: row[f"{name}_new"] for name in ("file_name", "identity")}
        changes.append(_change({**row, **now}, before=row["row_old"], after=row["row_new"], labels=labels))
    return changes


def _change(row: dict[Any, Any], *, before: Any = None, after: Any = None, labels: Any = None) -> RowChange:
    was, now = (None if number is None else int(number) for number in (before, after))
    return RowChange(row["image_id"], str(row["file_name"]), _known(row["identity"]), was, now, labels or {})


def _known(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _people(kind: str, names: list[str]) -> str:
    """Return "; 7 people are new: a, b …"."""
    shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    count = f"{len(names):,} {'person is' if len(names) == 1 else 'people are'}"
    return f"; {count} {kind}: {shown}" if names else ""

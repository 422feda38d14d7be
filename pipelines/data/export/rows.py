"""Read the rows to export, a few at a time: the original photos, or the preprocessed ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, OK, PROCESSED_SCHEMA, open_rows
from pipelines.core.sections.data import Rights
from pipelines.core.words import did_you_mean
from pipelines.data.rights import refusal_of, refused_photos

# The labels of a photo, exported to every layout that can hold them.
LABELS: tuple[str, ...] = ("identity", "prompt", "face_prompt", "source", "licence", "consent")
_ROWS_AT_ONCE = 64

Row = dict[str, Any]


@dataclass
class Selection:
    """The choice of the rows to export, and counts of the other rows by reason.

    `rights`: only rows that may be trained on (None: all rows); `identities`: only these people (None: all people);
    `gate`: why a row of this identity and image id is left out, or None; `refused`: photos that other rows refuse;
    `people`: the people of the rows asked about, and whether somebody may learn their names.
    """

    rights: Rights | None = None
    identities: frozenset[str] | None = None
    gate: Callable[[str | None, str | None], str | None] = lambda identity, image_id: None
    left_out: Counter[str] = field(default_factory=Counter)
    refused: frozenset[str] = frozenset()
    people: dict[str, bool] = field(default_factory=dict)

    def ask(self, folder: Path, schema: pa.Schema) -> None:
        """Ask all rows of a folder which photos they refuse: a copy of one may state another consent."""
        if self.rights is not None:
            self.refused |= refused_photos(open_rows(folder, schema).files, self.rights)

    def takes(self, row: Row) -> bool:
        """Return whether a row is exported; count its reason where it is not."""
        reason = self.meet(row)
        if reason is not None:
            pass
        elif self.identities is not None and normal_name(row["identity"]) not in self.identities:
            reason = "other people"
        elif self.rights is not None:
            reason = refusal_of(self.rights, row, self.refused)
        if reason is not None:
            self.left_out[reason] += 1
        return reason is None

    def meet(self, row: Row) -> str | None:
        """Note the person of a row; return why it is left out whatever is wanted, or None."""
        reason = self.gate(row["identity"], row["image_id"])
        if self.identities is not None and (name := normal_name(row["identity"])) is not None:
            self.people[name] = reason is None
        return reason

    def check_people(self) -> None:
        """Raise UserError where one of `identities` is nobody of whom there was a row, with the nearest names."""
        for name in sorted((self.identities or frozenset()) - self.people.keys()):
            near = did_you_mean(name, [one for one, known in self.people.items() if known], 3)
            raise UserError(f"--identity {name}: no photo of such a person{near}; nothing was written")


def dataset_rows(faces: Path, wanted: Selection) -> Iterator[Row]:
    """Yield the rows of a dataset folder that `wanted` takes, in the order of shards and rows."""
    wanted.ask(faces, DATASET_SCHEMA)
    yield from filter(wanted.takes, _rows(faces, DATASET_SCHEMA, None))


def accepted_rows(processed: Path, wanted: Selection, columns: list[str] | None = None) -> Iterator[Row]:
    """Yield the accepted rows of a processed folder that `wanted` takes; count rejected rows as left out."""
    wanted.ask(processed, PROCESSED_SCHEMA)
    for row in _rows(processed, PROCESSED_SCHEMA, columns):
        if row["status"] != OK:
            wanted.meet(row)
            wanted.left_out[f"rejected: {row['reason']}"] += 1
        elif wanted.takes(row):
            yield row


def known_labels(row: Row) -> dict[str, str]:
    """Return the known labels of a photo, its hash and its name in the dataset, for JSON."""
    known = {name: row[name] for name in ("image_id", *LABELS) if row[name] is not None}
    return {**known, "dataset_file_name": row["file_name"]}


def sidecar(row: Row) -> bytes | None:
    """Return the text file of a photo (line 1 prompt, line 2 face prompt), or None where it has neither."""
    lines = [row["prompt"] or "", *([row["face_prompt"]] if row["face_prompt"] else [])]
    return "".join(f"{line}\n" for line in lines).encode() if any(lines) else None


def _rows(folder: Path, schema: pa.Schema, columns: list[str] | None) -> Iterator[Row]:
    for shard in open_rows(folder, schema).files:
        with pq.ParquetFile(shard, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns or schema.names):
                yield from batch.to_pylist()

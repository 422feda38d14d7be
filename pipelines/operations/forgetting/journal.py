"""What a request to forget still has to do, `.dynamicid/forgetting.json`, kept until nothing is left of the subject.

The first step of a request deletes what a later step would need to find the rest: without this file, a request that was
killed or stopped could not be finished. It holds names and image ids, and is deleted at the end.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.subject import Subject

FILE = Path(".dynamicid") / "forgetting.json"


@dataclass(frozen=True)
class Journal:
    """People, image ids, sha256 of other files, pieces of bytes (hex), splits, and DVC's hashes of folders.

    `datasets` and `outputs` held them; an evaluation of a folder in `shown` may show them.
    """

    identities: frozenset[str] = frozenset()
    image_ids: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    pieces: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()

    def __or__(self, other: Journal) -> Journal:
        return Journal(**{one.name: getattr(self, one.name) | getattr(other, one.name) for one in fields(self)})

    def added_to(self, subject: Subject) -> Subject:
        """Return the subject together with what this journal has of it."""
        sets = (subject.identities | self.identities, subject.image_ids | self.image_ids, subject.files | self.files)
        return Subject(*sets, subject.listed)

    def probe(self) -> Probe:
        """Return a probe for the pieces."""
        return Probe({bytes.fromhex(piece) for piece in self.pieces})


def read_journal(root: Path) -> Journal:
    """Return the journal of a request that is not finished; an empty one where there is none."""
    file = root / FILE
    if not file.is_file():
        return Journal()
    try:
        return Journal(**{name: frozenset(values) for name, values in json.loads(file.read_text("utf-8")).items()})
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{file}: damaged; delete it, and forget the same people again, by name and image_id") from None


def write_journal(root: Path, journal: Journal) -> None:
    """Keep a journal."""
    values = {name: sorted(value) for name, value in asdict(journal).items()}
    write_atomically(root / FILE, json.dumps(values) + "\n", mode=0o600)


def end_journal(root: Path) -> None:
    """Delete the journal: nothing is left to do."""
    (root / FILE).unlink(missing_ok=True)

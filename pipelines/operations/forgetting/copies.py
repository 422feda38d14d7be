"""The list of exports of the dataset, `.dynamicid/copies.jsonl`, which `dynamicid forget` reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

FILE = Path(".dynamicid") / "copies.jsonl"


@dataclass(frozen=True)
class Copy:
    """A folder with photos of the dataset, what wrote it and when (UTC, ISO 8601)."""

    folder: str
    what: str
    when: str


def note_copy(root: Path, folder: Path, what: str) -> None:
    """Add `folder` to the list; `what` (such as "export, webdataset") wrote photos of the dataset into it."""
    file = root / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    made = Copy(str(folder.resolve()), what, datetime.now(UTC).isoformat(timespec="seconds"))
    with FileLock(file.with_suffix(".lock")), file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(made)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def known_copies(root: Path) -> list[Copy]:
    """Return the latest entry of each folder that still exists."""
    file = root / FILE
    if not file.is_file():
        return []
    entries = (Copy(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    latest = {copy.folder: copy for copy in entries}
    return [copy for copy in latest.values() if Path(copy.folder).exists()]

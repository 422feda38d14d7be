"""The list of folders outside its fixed places into which the project wrote faces: `.dynamicid/copies.jsonl`.

Whatever writes photos to a folder that the user chose notes it here, so that `dynamicid forget` and `dynamicid subject`
know every place by the code that writes there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.versions.dvc import home_of

FILE = Path(".dynamicid") / "copies.jsonl"
# Where DVC runs the experiments of `dvc exp run --temp` and `--queue`, each in a clone of the checkout.
EXPERIMENTS = Path(".dvc") / "tmp" / "exps"
# What a folder is, beside exports and curated sets, which are copies of photos for other programs.
DATASET, RUNS, RESTORED, INBOX, SHARED = "dataset", "runs", "restored", "inbox", "state"
# Records computed of photos, and networks trained on them.
CACHE, BASE = "cache", "base"
SHEETS, BACKUP, SUBJECT, ROWS = "sheets", "backup", "page of a subject", "page of rows"
# Pictures in them are drawn again or packed, so that what they show cannot be read from them.
UNREADABLE = (SHEETS, BACKUP, SUBJECT, ROWS)


@dataclass(frozen=True)
class Copy:
    """A folder with photos of the dataset, what wrote it and when (UTC, ISO 8601).

    In the list, a folder in the checkout is relative to it, so that it is found after the checkout was moved or copied.
    """

    folder: str
    what: str
    when: str


def is_experiment(root: Path) -> bool:
    """Return whether `root` is a clone that DVC made for an experiment, and removes after it."""
    return f"/{EXPERIMENTS.as_posix()}/" in root.as_posix()


def note_copy(root: Path, folder: Path, what: str) -> None:
    """Add `folder` to the list; `what` (such as "export, webdataset") writes photos into it. Call it before that.

    The workspace of a run also adds it to the list of its checkout, which is asked to forget, and stays longer.
    """
    if (home := home_of(root)) is not None:
        note_copy(home, folder, what)
    file = root / FILE
    made = Copy(str(folder.resolve()), what, datetime.now(UTC).isoformat(timespec="seconds"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        latest = {**_read(root), made.folder: made}
        lines = [asdict(replace(copy, folder=_listed(root, copy.folder))) for copy in latest.values()]
        write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))


def note_outside(root: Path, folder: Path, usual: str, what: str = DATASET) -> None:
    """Add `folder` to the list, unless it is the `usual` one of the checkout `root`, or `root` is none."""
    if (root / ".dvc" / "config").is_file() and folder.resolve() != (root / usual).resolve():
        note_copy(root, folder, what)


def known_copies(root: Path) -> list[Copy]:
    """Return the latest entry of each folder that still exists, or of which a killed writer left a part."""
    return [copy for copy in _read(root).values() if any(parts_of(Path(copy.folder)))]


def noted(root: Path, what: str) -> list[Path]:
    """Return the folders that were noted as `what` and still exist."""
    return [Path(copy.folder) for copy in known_copies(root) if copy.what == what]


def parts_of(folder: Path) -> list[Path]:
    """Return what there is of a folder: itself, and the hidden parts that `atomic_folder` leaves when it is killed."""
    names = (folder.name, f".{folder.name}.part", f".{folder.name}.old")
    return [path for name in names if (path := folder.with_name(name)).exists()]


def _listed(root: Path, folder: str) -> str:
    path, home = Path(folder), root.resolve()
    return str(path.relative_to(home)) if path.is_relative_to(home) else folder


def _read(root: Path) -> dict[str, Copy]:
    """Return the latest entry of each folder, with its absolute path; raise UserError where a line is damaged."""
    latest, file = {}, root / FILE
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else (), 1):
        try:
            copy = Copy(**json.loads(line))
            copy = replace(copy, folder=str(root.resolve() / copy.folder))
        except (ValueError, TypeError):
            raise UserError(
                f"{file}, line {number}: damaged; expected folder, what and when of a copy of photos: repair or delete "
                "the line, and remember the folder that it named"
            ) from None
        latest[copy.folder] = copy
    return latest

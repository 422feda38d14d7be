"""The working tree of a checkout: tables, caches, checkpoints, run workspaces and reports without somebody."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.core.chain import FACES
from pipelines.core.errors import StageFailed
from pipelines.data.ingest.found import is_picture_name
from pipelines.operations.forgetting.subject import Rows, Subject, rows_in, write_without
from pipelines.versions.workspace import runs_folder

STATE = ".dynamicid"


def tables_of(root: Path) -> Iterator[Path]:
    """Yield the Parquet files of a checkout's data and state folders, without those of its run workspaces."""
    runs = runs_folder(root).resolve()
    for name in ("data", STATE):
        for file in sorted((root / name).rglob("*.parquet")):
            if not file.resolve().is_relative_to(runs):
                yield file


def find_tables(root: Path, subject: Subject) -> dict[Path, Rows]:
    """Return the tables of a checkout that hold somebody, and what they hold."""
    found = {file: rows_in(file, subject) for file in tables_of(root)}
    return {file: rows for file, rows in found.items() if rows is not None and rows.image_ids}


def workspaces(root: Path) -> list[Path]:
    """Return the folders of all runs, unfinished ones too."""
    runs = runs_folder(root)
    return sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []


@contextmanager
def quiet(root: Path, others: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of ingest, preprocessing, curation and trainings in `root` and `others` while the block runs.

    Raises StageFailed where one of them is at work: it would write what is being forgotten.
    """
    with ExitStack() as held:
        for folder in (root, *others):
            faces = folder / FACES
            locks = [faces.with_name(f".{faces.name}.lock")] if faces.parent.is_dir() else []
            locks += [folder / STATE / name / ".lock" for name in ("preprocess", "curate")]
            locks += sorted((folder / STATE / "resume").glob("*/*.lock"))
            for lock in locks:
                if not lock.parent.is_dir():
                    continue
                try:
                    held.enter_context(FileLock(lock, timeout=0))
                except Timeout:
                    raise StageFailed(
                        f"{lock}: an ingest, preprocessing, curation or training is at work there; wait for it to end, "
                        "then forget again"
                    ) from None
        yield


def clean_tables(root: Path, tables: Iterable[Path], subject: Subject) -> dict[str, int]:
    """Take the subject out of `tables`: those of the data folder keep their other rows, cached ones are deleted."""
    counts = {"rewritten": 0, "deleted": 0}
    for file in tables:
        kept = not file.is_relative_to(root / STATE)
        if not (kept and write_without(file, file, subject)):
            file.unlink()
            kept = False
        counts["rewritten" if kept else "deleted"] += 1
    return counts


def delete_photos(root: Path, image_ids: frozenset[str]) -> int:
    """Delete pictures in the state folder whose bytes are the subject's, with the text beside them; return how many."""
    runs, count = runs_folder(root).resolve(), 0
    for folder, _, names in os.walk(root / STATE):
        if Path(folder).resolve().is_relative_to(runs):
            continue
        for name in names:
            file = Path(folder) / name
            if is_picture_name(name) and sha256(file) in image_ids:
                file.unlink()
                file.with_suffix(".txt").unlink(missing_ok=True)
                count += 1
    return count


def holds(workspace: Path, subject: Subject) -> bool:
    """Whether a run's workspace has a table or a picture of the subject."""
    if find_tables(workspace, subject):
        return True
    return any(
        is_picture_name(name) and sha256(Path(folder) / name) in subject.image_ids
        for folder, _, names in os.walk(workspace / STATE)
        for name in names
    )


def delete_checkpoints(root: Path) -> int:
    """Delete checkpoints of interrupted trainings: which photos one of them was trained on is not written in it."""
    resume = root / STATE / "resume"
    folders = [path for path in sorted(resume.glob("*/*")) if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def delete_reports(root: Path) -> list[str]:
    """Delete the pages below reports/ that show pictures; return their names."""
    deleted = []
    for page in sorted((root / "reports").rglob("*.html")):
        if b"data:image/" in page.read_bytes():
            page.unlink()
            deleted.append(page.relative_to(root).as_posix())
    return deleted


def sha256(file: Path) -> str:
    """Return the hash of a file's bytes in hex, "" where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""

"""The working tree of a checkout: tables, caches, checkpoints, run workspaces and reports without somebody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.core.chain import FACES
from pipelines.core.errors import StageFailed
from pipelines.core.files import sha256
from pipelines.core.locks import hold
from pipelines.data.ingest.photo_files import is_picture_name
from pipelines.operations.forgetting.subject import Rows, Subject, rows_in, write_without
from pipelines.versions.workspace import runs_folder

STATE = ".dynamicid"


def _files(root: Path, *folders: str) -> Iterator[Path]:
    """Yield the files below `folders` of a checkout, without those of its run workspaces, which are checkouts too."""
    runs = runs_folder(root).resolve()
    for name in folders:
        for folder, _, names in os.walk(root / name):
            # A workspace lies in the runs of its own checkout where one folder is named for all.
            if not (runs.is_relative_to(root.resolve()) and Path(folder).resolve().is_relative_to(runs)):
                yield from (Path(folder) / name for name in names)


def find_tables(root: Path, subject: Subject) -> dict[Path, Rows]:
    """Return the tables of a checkout that hold somebody, and what they hold."""
    tables = sorted(file for file in _files(root, "data", STATE) if file.suffix == ".parquet")
    found = {file: rows_in(file, subject) for file in tables}
    return {file: rows for file, rows in found.items() if rows is not None and rows.image_ids}


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
                message = (
                    f"{lock}: an ingest, preprocessing, curation or training is at work there; wait for it to end, "
                    "then forget again"
                )
                if lock.parent.is_dir():
                    held.enter_context(hold(lock, StageFailed(message)))
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
    theirs = [file for file in _files(root, STATE) if _is_one_of(image_ids, file)]
    for file in theirs:
        file.unlink()
        file.with_suffix(".txt").unlink(missing_ok=True)
    return len(theirs)


def holds(workspace: Path, subject: Subject) -> bool:
    """Whether a run's workspace has a table or a picture of the subject."""
    pictures = (_is_one_of(subject.image_ids, file) for file in _files(workspace, STATE))
    return bool(find_tables(workspace, subject)) or any(pictures)


def _is_one_of(image_ids: frozenset[str], file: Path) -> bool:
    """Whether a file is one of the photos; one that cannot be read is none."""
    try:
        return is_picture_name(file.name) and sha256(file) in image_ids
    except OSError:
        return False


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

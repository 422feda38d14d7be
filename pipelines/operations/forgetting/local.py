"""Find and delete a subject's data in the working tree: tables, caches, checkpoints, run workspaces and reports."""

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
from pipelines.operations.forgetting.subject import Subject, SubjectRows, rows_in, write_without
from pipelines.versions.workspace import runs_folder

STATE = ".dynamicid"


def _files(root: Path, *folders: str) -> Iterator[Path]:
    """Yield the files below `folders` of a checkout, without its run workspaces, which are checkouts themselves."""
    runs = runs_folder(root).resolve()
    for name in folders:
        for folder, _, names in os.walk(root / name):
            # With one runs folder for all checkouts, a workspace is inside its own runs folder.
            if not (runs.is_relative_to(root.resolve()) and Path(folder).resolve().is_relative_to(runs)):
                yield from (Path(folder) / name for name in names)


def find_tables(root: Path, subject: Subject) -> dict[Path, SubjectRows]:
    """Return {table: rows of the subject} of a checkout, for tables that have any."""
    tables = sorted(file for file in _files(root, "data", STATE) if file.suffix == ".parquet")
    found = {file: rows_in(file, subject) for file in tables}
    return {file: rows for file, rows in found.items() if rows is not None and rows.image_ids}


@contextmanager
def hold_locks(root: Path, others: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of ingest, preprocessing, curation and trainings in `root` and `others` during the block.

    Raises StageFailed where one of them is at work, since it could write the same data again.
    """
    with ExitStack() as stack:
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
                    stack.enter_context(hold(lock, StageFailed(message)))
        yield


def clean_tables(root: Path, tables: Iterable[Path], subject: Subject) -> dict[str, int]:
    """Remove the subject's rows from tables of the data folder; delete cached tables and those left without rows."""
    counts = {"rewritten": 0, "deleted": 0}
    for file in tables:
        kept = not file.is_relative_to(root / STATE) and write_without(file, file, subject)
        if not kept:
            file.unlink()
        counts["rewritten" if kept else "deleted"] += 1
    return counts


def delete_photos(root: Path, image_ids: frozenset[str]) -> int:
    """Delete photos with these ids from the state folder, with the text file beside each; return their number."""
    photos = [file for file in _files(root, STATE) if _is_one_of(image_ids, file)]
    for file in photos:
        file.unlink()
        file.with_suffix(".txt").unlink(missing_ok=True)
    return len(photos)


def has_data_of(workspace: Path, subject: Subject) -> bool:
    """Whether a run's workspace has rows or photos of the subject."""
    pictures = (_is_one_of(subject.image_ids, file) for file in _files(workspace, STATE))
    return bool(find_tables(workspace, subject)) or any(pictures)


def _is_one_of(image_ids: frozenset[str], file: Path) -> bool:
    """Whether a file is one of the photos; False where it cannot be read."""
    try:
        return is_picture_name(file.name) and sha256(file) in image_ids
    except OSError:
        return False


def delete_checkpoints(root: Path) -> int:
    """Delete all checkpoints of interrupted trainings, as they do not list their photos; return their number."""
    resume = root / STATE / "resume"
    folders = [path for path in sorted(resume.glob("*/*")) if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def delete_reports(root: Path) -> list[str]:
    """Delete the HTML files below reports/ that embed pictures; return their paths in `root`."""
    deleted = []
    for page in sorted((root / "reports").rglob("*.html")):
        if b"data:image/" in page.read_bytes():
            page.unlink()
            deleted.append(page.relative_to(root).as_posix())
    return deleted

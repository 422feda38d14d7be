"""Find and delete a subject's data in the working tree: tables, caches, checkpoints, run workspaces and reports.

Files are recognised by their content, so that a cache which begins to write another format, or other file names, is
found all the same. Folders that are links to other disks are followed.
"""

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
from pipelines.data.ingest.label_join import owners
from pipelines.data.ingest.photo_files import SIGNATURE_BYTES, is_picture_name, is_picture_start
from pipelines.data.ingest.sidecars import BESIDE
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import SubjectRows, is_table, rows_in, write_without
from pipelines.operations.inbox.batches import BAD, DONE, TAKEN
from pipelines.versions.dvc import local_stores
from pipelines.versions.interrupted import unfinished_objects
from pipelines.versions.places import DATASET, INBOX, noted
from pipelines.versions.workspace import all_runs_folders

STATE = ".dynamicid"
DATA = "data"
# Of other programs: servers' databases and logs are searched for bytes, but nothing in them is taken for a cache.
_OTHERS = frozenset({"stack"})
_UNFINISHED = (".part", ".old", ".gone")


def walk(top: Path, without: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield the files below a folder, also behind links to folders, each once; not those below `without`."""
    left_out = {folder.resolve() for folder in without}
    visited: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(top, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited or Path(folder).resolve() in left_out:
            below[:] = []
            continue
        visited.add((status.st_dev, status.st_ino))
        yield from (Path(folder) / name for name in sorted(names))


def _files(root: Path, *folders: str) -> Iterator[Path]:
    """Yield the files below `folders` of a checkout, without its run workspaces, which are checkouts themselves."""
    # With one runs folder for all checkouts, a workspace is inside its own runs folder.
    runs = [runs for runs in all_runs_folders(root) if runs.resolve().is_relative_to(root.resolve())]
    for name in folders:
        yield from walk(root / name, [*runs, *(root / STATE / other for other in _OTHERS)])


def dataset_folders(root: Path) -> list[Path]:
    """Return the folders in which tables are rewritten: the data folder, and datasets that were made elsewhere."""
    return [root / DATA, *noted(root, DATASET)]


def find_tables(root: Path, subject: Subject) -> dict[Path, SubjectRows]:
    """Return {table: rows of the subject} of a checkout and of datasets noted in it, for tables that have any."""
    outside = (file for folder in noted(root, DATASET) for file in walk(folder))
    found = {file: rows_in(file, subject) for file in (*_files(root, DATA, STATE), *outside) if is_table(file)}
    return {file: rows for file, rows in sorted(found.items()) if rows is not None and rows.rows}


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
    """Remove the subject's rows from tables of datasets; delete cached tables and those left without rows."""
    counts = {"rewritten": 0, "deleted": 0}
    for file in tables:
        kept = not file.is_relative_to(root / STATE) and write_without(file, file, subject)
        if not kept:
            file.unlink()
        counts["rewritten" if kept else "deleted"] += 1
    return counts


def find_photos(root: Path, subject: Subject) -> list[Path]:
    """Return the picture files of the subject in the state folder: of their bytes, or in a folder of their name."""
    state = root / STATE
    named = [(Path(file.relative_to(state)), file) for file in _files(root, STATE)]
    for folder in noted(root, INBOX):
        named += [(Path("inbox") / file.relative_to(folder), file) for file in walk(folder)]
    return [file for relative, file in named if _named(subject, relative) or shown_by(subject, file)]


def delete_photos(photos: Iterable[Path]) -> int:
    """Delete picture files, with the texts beside each; return their number."""
    count = 0
    for file in photos:
        for text in _texts_of(file):
            text.unlink(missing_ok=True)
        file.unlink()
        count += 1
    return count


def _texts_of(photo: Path) -> list[Path]:
    """Return the label files that describe this photo: of its name, and of no other photo in its folder."""
    names = [file.name for file in photo.parent.iterdir() if file.name != photo.name and file.is_file()]
    stem = photo.name.split(".", 1)[0].casefold()
    labels = [name for name in names if Path(name).suffix.lower() in BESIDE and name.casefold().startswith(stem)]
    pictures = [photo.name, *(name for name in names if is_picture_name(name))]
    return [photo.parent / name for name, fits in owners(pictures, labels).items() if fits == [photo.name]]


def delete_unfinished(root: Path, probe: Probe) -> None:
    """Delete what killed writers left unfinished in data and state folders: it may hold faces, in no readable form.

    Nobody is at work there: the locks are held. Of objects in stores, which others may be writing, only those that hold
    bytes of the subject.
    """
    for file in probe.among(unfinished_objects(local_stores(root))):
        file.unlink(missing_ok=True)
    folders = {file.parent for file in _files(root, DATA, STATE)} | {root / DATA, root / STATE}
    for folder in sorted(folders):
        for path in sorted(folder.glob(".*")) if folder.is_dir() else ():
            if path.suffix in _UNFINISHED:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def has_data_of(workspace: Path, subject: Subject) -> bool:
    """Whether a run's workspace has rows or photos of the subject."""
    return bool(find_tables(workspace, subject)) or bool(find_photos(workspace, subject))


def shown_by(subject: Subject, file: Path) -> bool:
    """Whether a file is a picture of the subject by its bytes; False where it cannot be read."""
    try:
        with file.open("rb") as stream:
            if not is_picture_name(file.name) and not is_picture_start(stream.read(SIGNATURE_BYTES)):
                return False
        return subject.shows(sha256(file))
    except OSError:
        return False


def _named(subject: Subject, relative: Path) -> bool:
    """Whether a path in the state folder is a picture in the folder of a person, in a source of photos."""
    folder, *below = relative.parts
    depth = 3 if below[:1] and below[0] in (TAKEN, DONE, BAD) else 1
    source = {"photos": below, "showcase": below, "inbox": below[depth:]}.get(folder, [])
    return is_picture_name(relative.name) and bool(source) and subject.lies_in(Path(*source))


def delete_checkpoints(root: Path) -> int:
    """Delete all checkpoints of interrupted trainings, as they do not list their photos; return their number."""
    resume = root / STATE / "resume"
    folders = [path for path in sorted(resume.glob("*/*")) if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def delete_reports(root: Path) -> list[str]:
    """Delete the HTML files below reports/ that embed pictures; return their paths in `root`."""
    deleted = pages_with_pictures(root)
    for page in deleted:
        (root / page).unlink()
    return deleted


def pages_with_pictures(root: Path) -> list[str]:
    """Return the HTML files below reports/ that embed pictures, relative to `root`."""
    pages = sorted((root / "reports").rglob("*.html"))
    return [page.relative_to(root).as_posix() for page in pages if b"data:image/" in page.read_bytes()]

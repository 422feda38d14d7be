"""Find and delete a subject's data in the working tree: tables, photos, caches, checkpoints, workspaces and reports.

Files are recognised by their content, so that a cache which begins to write another format, or other file names, is
found all the same. Folders that are links to other disks are followed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipelines.core.chain import FACES
from pipelines.core.errors import StageFailed
from pipelines.core.execution import FOLDER as EXECUTIONS
from pipelines.core.locks import IN_USE, WORKSPACE, hold
from pipelines.data.ingest.parquet_files import FAULTS
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.sources import SubjectFiles, batches, files_of, listed, unlist
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import SubjectRows, is_table, names_in, rows_in, write_without
from pipelines.registry.relocation import unfinished_uploads
from pipelines.versions.dvc import local_stores
from pipelines.versions.forgotten import is_person
from pipelines.versions.interrupted import unfinished_objects
from pipelines.versions.places import (
    BASE,
    CACHE,
    DATASET,
    INBOX,
    RESTORED,
    RUNS,
    SHARED,
    UNREADABLE,
    Copy,
    known_copies,
    noted,
    parts_of,
)
from pipelines.versions.state import CACHE as RECORDS
from pipelines.versions.state import COMPARE, CURATE, DRIFT, EVALUATION, LOCK, PREPROCESS, RESUME, STATE, states_of
from pipelines.versions.workspace import all_runs_folders

DATA = "data"
# In the state folder: the checkout's own inbox, and copies of batches of an object store.
_INBOXES = ("inbox", "inbox_copies")
# Of other programs: servers' databases and logs are searched for bytes, but nothing in them is taken for a cache.
_OTHERS = frozenset({"stack"})
# Noted folders that are no copies of photos: they are searched or named as what they are.
_NO_COPIES = (BASE, CACHE, DATASET, INBOX, RUNS, SHARED)
_FACES = re.compile(rb"data:image/(?!svg)")
# Every report of an evaluation names its metrics file (pipelines/evaluation/belonging.py).
_EVALUATION = b'<meta name="metrics"'
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


def _files(root: Path, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files below `folders` of a checkout, without its run workspaces, which are checkouts themselves."""
    # With one runs folder for all checkouts, a workspace is inside its own runs folder.
    runs = [runs for runs in all_runs_folders(root) if runs.resolve().is_relative_to(root.resolve())]
    for folder in folders:
        yield from walk(folder, [*runs, *(root / STATE / other for other in _OTHERS)])


def find_tables(root: Path, subject: Subject, unread: set[Path]) -> dict[Path, SubjectRows]:
    """Return {table: rows of the subject} of a checkout and of datasets noted in it, for tables that have any.

    Damaged tables are added to `unread`.
    """
    outside = (file for folder in noted(root, DATASET) for file in walk(folder))
    inboxes = [root / STATE / name for name in _INBOXES]
    inside = (
        file for file in _files(root, [root / DATA, *states_of(root)]) if not any(map(file.is_relative_to, inboxes))
    )
    found: dict[Path, SubjectRows] = {}
    for file in filter(is_table, (*inside, *outside)):
        try:
            rows = rows_in(file, subject)
        except FAULTS:
            unread.add(file)
        else:
            found |= {file: rows} if rows is not None and rows.rows else {}
    return dict(sorted(found.items()))


def table_caches(root: Path) -> list[Path]:
    """Return the folders of the state in which every table is made again where it is missing or damaged."""
    return [top / name for top in states_of(root) for name in (PREPROCESS, CURATE)]


def people_of(root: Path) -> set[str]:
    """Return the names of the people in the tables of a checkout's data; damaged tables are left out."""
    names: set[str] = set()
    for file in filter(is_table, _files(root, [root / DATA])):
        with suppress(*FAULTS):
            names |= names_in(file)
    return names


@contextmanager
def hold_locks(root: Path, others: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of all that writes faces in `root` and `others`, workspaces of runs, during the block.

    Raises StageFailed where one of them is at work, since it could write the same data again.
    """
    with ExitStack() as stack:
        for folder in (root, *others):
            faces = folder / FACES
            locks = [faces.with_name(f".{faces.name}.lock")] if faces.parent.is_dir() else []
            for state in states_of(folder):
                locks += [state / name / LOCK for name in (PREPROCESS, CURATE, RECORDS, EVALUATION, COMPARE, DRIFT)]
                locks += sorted((state / RESUME).glob("*/*.lock"))
            if folder != root and (folder / WORKSPACE).is_file():
                locks.append(folder / IN_USE)
            for lock in locks:
                work = "an ingest, preprocessing, curation, training or evaluation"
                what = "a command" if lock.name == Path(IN_USE).name else work
                message = f"{lock}: {what} is at work there; wait for it to end, then forget again"
                if lock.parent.is_dir():
                    stack.enter_context(hold(lock, StageFailed(message)))
        yield


def clean_tables(root: Path, tables: Iterable[Path], subject: Subject) -> dict[str, int]:
    """Remove the subject's rows from tables of datasets; delete cached tables and those left without rows."""
    counts, states = {"rewritten": 0, "deleted": 0}, states_of(root)
    for file in tables:
        kept = not any(map(file.is_relative_to, states)) and write_without(file, file, subject)
        if not kept:
            file.unlink()
        counts["rewritten" if kept else "deleted"] += 1
    return counts


def find_files(root: Path, subject: Subject) -> SubjectFiles:
    """Return the subject's files in the state folder and in inboxes: photos, and what came with them."""
    state, found = root / STATE, SubjectFiles()
    inboxes = [*(state / name for name in _INBOXES), *noted(root, INBOX)]
    photos = [state / "photos", state / "showcase"]
    for inbox in inboxes:
        for batch in batches(inbox, walk(inbox)):
            found |= files_of(batch, subject)
        found |= listed(inbox, subject, found)
    for folder in photos:
        found |= files_of(_by_name(folder, walk(folder)), subject)
    for top in states_of(root):
        others = (file for file in _files(root, [top]) if not any(map(file.is_relative_to, (*inboxes, *photos))))
        found |= files_of(_by_name(top, (file for file in others if not is_table(file))), subject, named=False)
    return found


def delete_files(root: Path, found: SubjectFiles) -> int:
    """Delete pictures, after what came with them, and folders that are empty then; return the number of pictures."""
    own = (root / STATE / name for name in (*_INBOXES, "photos", "showcase"))
    kept = {*states_of(root), *own, *noted(root, INBOX)}
    for list_, entries in found.lists.items():
        unlist(list_, entries)
    for file in (*sorted(found.beside), *sorted(found.pictures)):
        file.unlink(missing_ok=True)
        for folder in file.parents:  # its name may be that of the person
            if folder in kept or any(folder.iterdir()):
                break
            folder.rmdir()
    return len(found.pictures)


def copies_with(root: Path, subject: Subject, probe: Probe) -> list[Copy]:
    """Return the noted copies that hold a photo, row or bytes of the subject, or whose pictures name nobody."""

    def holds(copy: Copy) -> bool:
        named = copy.what != RESTORED
        parts = parts_of(Path(copy.folder))
        return any(
            probe.files_with([part]) or files_of(_by_name(part, walk(part)), subject, named=named) for part in parts
        )

    others = (copy for copy in known_copies(root) if copy.what not in _NO_COPIES)
    return [copy for copy in others if copy.what in UNREADABLE or holds(copy)]


def _by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    return {file.relative_to(folder).as_posix(): file for file in files}


def delete_unfinished(root: Path, probe: Probe) -> None:
    """Delete what killed writers left unfinished in data and state folders: it may hold faces, in no readable form.

    Nobody is at work there: the locks are held. Of objects in stores, which others may be writing, only those that hold
    bytes of the subject.
    """
    for file in probe.among((*unfinished_objects(local_stores(root)), *unfinished_uploads(root))):
        file.unlink(missing_ok=True)
    tops = [root / DATA, *states_of(root)]
    folders = {file.parent for file in _files(root, tops)} | {*tops}
    for folder in sorted(folders):
        for path in sorted(folder.glob(".*")) if folder.is_dir() else ():
            if path.suffix in _UNFINISHED:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def has_data_of(workspace: Path, subject: Subject) -> bool:
    """Whether a run's workspace has rows or photos of the subject."""
    return bool(find_tables(workspace, subject, set()) or find_files(workspace, subject))


def delete_checkpoints(root: Path) -> int:
    """Delete all checkpoints of interrupted trainings, as they do not list their photos; return their number."""
    folders = [path for top in states_of(root) for path in sorted((top / RESUME).glob("*/*")) if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def delete_drawn(root: Path) -> int:
    """Delete what evaluations and comparisons made, as it does not list whom it shows; return the number of files."""
    tops = [state / name for state in states_of(root) for name in (EVALUATION, COMPARE)]
    files = [file for top in tops for file in walk(top) if file.name != LOCK]
    for file in files:
        file.unlink()
    return len(files)


def record_folders(root: Path) -> list[Path]:
    """Return the folders of caches with records of photos: those of the trainings, and of bases of photographs."""
    return [*(top / RECORDS for top in states_of(root)), root / STATE / "foundation", *noted(root, CACHE)]


def bases_of(root: Path, subject: Subject) -> list[str]:
    """Return the folders of bases that were trained on one of the subject's people, by the hashes in their manifests.

    Where only photos are named, any base may have been trained on them: all are returned.
    """
    folders = dict.fromkeys([*sorted(file.parent for file in root.glob("weights/*/manifest.json")), *noted(root, BASE)])
    found = []
    for folder in folders:
        try:
            pairs = json.loads((folder / "manifest.json").read_bytes()).get("origin", {}).get("people_seen", ())
        except (OSError, ValueError, AttributeError):
            continue
        if any(is_person(pair, name) for name in subject.identities for pair in pairs) or (
            pairs and not subject.identities
        ):
            found.append(str(folder.relative_to(root) if folder.is_relative_to(root) else folder))
    return found


def pages_with_faces(root: Path, *, evaluations: bool) -> list[Path]:
    """Return the HTML files below reports/ that embed pictures of people, and the sample pictures of trainings.

    Reports of evaluations show people who are held out, and are left out unless `evaluations`; all others, such as
    pages of rows, may show anybody. Plots (SVG) show nobody.
    """
    found = sorted((root / EXECUTIONS).rglob("*.png"))
    for page in sorted((root / "reports").rglob("*.html")):
        text = page.read_bytes()
        if _FACES.search(text) and (evaluations or _EVALUATION not in text):
            found.append(page)
    return found


def delete_reports(root: Path, *, evaluations: bool) -> list[str]:
    """Delete `pages_with_faces`; return their paths in `root`."""
    pages = pages_with_faces(root, evaluations=evaluations)
    for page in pages:
        page.unlink()
    return [page.relative_to(root).as_posix() for page in pages]

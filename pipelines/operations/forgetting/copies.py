"""Find which of the folders that were noted as copies of photos hold a subject: by person and by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import FoundPhoto
from pipelines.operations.forgetting.local import find_tables, shown_by, walk
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import is_table, rows_in
from pipelines.versions.places import DATASET, INBOX, RESTORED, RUNS, UNREADABLE, Copy, known_copies, parts_of

# Searched and cleaned as parts of the project, not as copies.
_OWN = (DATASET, INBOX, RUNS)
_LARGEST = 2**31


def copies_with(root: Path, subject: Subject, probe: Probe) -> list[Copy]:
    """Return the copies that hold the subject, or may hold it: those whose pictures name nobody."""
    others = (copy for copy in known_copies(root) if copy.what not in _OWN)
    return [copy for copy in others if copy.what in UNREADABLE or holds(Path(copy.folder), copy.what, subject, probe)]


def holds(folder: Path, what: str, subject: Subject, probe: Probe) -> bool:
    """Whether a copy, or an unfinished part of it, holds a photo, a row or bytes of the subject."""
    if what == RESTORED and find_tables(folder, subject):
        return True
    for part in parts_of(folder):
        files = list(walk(part))
        tables = (rows_in(file, subject) for file in files if is_table(file))
        if any(rows is not None and rows.rows for rows in tables) or any(shown_by(subject, file) for file in files):
            return True
        if probe.files_with([part]) or any(_shows(subject, photo) for photo in _photos(part)):
            return True
    return False


def _photos(folder: Path) -> Iterator[FoundPhoto]:
    """Yield the photos of a copy with their labels, in the layout that ingest reads; none where it is none."""
    try:
        for item in open_source(folder, identity_depth=1).read(_LARGEST):
            if isinstance(item, FoundPhoto):
                yield item
    except (UserError, StageFailed):
        return


def _shows(subject: Subject, photo: FoundPhoto) -> bool:
    if subject.names(photo.labels.identity):
        return True
    return photo.data is not None and subject.shows(hashlib.sha256(photo.data).hexdigest())

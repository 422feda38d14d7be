"""Find a subject's photos in sources of photos (inboxes, photos that the page keeps, copies), with what came with them.

Labels are joined as `ingest` joins them. A batch of an inbox is one source, wherever a run has put its files.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.data.ingest.contents import BROKEN_SHARD, Content
from pipelines.data.ingest.huggingface import picture_column
from pipelines.data.ingest.label_files import DESCRIPTION_BYTES, TABLES, paths_in, table_of
from pipelines.data.ingest.label_join import Members, TableJoin, owners
from pipelines.data.ingest.label_values import labels_of
from pipelines.data.ingest.layout import Source
from pipelines.data.ingest.parquet_files import FAULTS
from pipelines.data.ingest.photo_files import is_picture_name, is_picture_start, is_tar_name, row_name
from pipelines.data.ingest.sidecars import BESIDE, sidecar_labels
from pipelines.operations.forgetting.packed import Unreadable, contents, is_packed
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import ARROW, PARQUET, rows_in
from pipelines.operations.inbox.batches import BAD, DONE, LOOSE, TAKEN

_LARGEST = 2**31


@dataclass
class SubjectFiles:
    """Files of a subject: `pictures`, what came `beside` them and is about nobody else, and files `shared` with others.

    `image_ids`: sha256 of the pictures, also of those in shared files. `lists`: {list of an inbox: its entries about
    them}. `unread`: files that cannot be searched.
    """

    pictures: set[Path] = field(default_factory=set)
    beside: set[Path] = field(default_factory=set)
    shared: set[Path] = field(default_factory=set)
    unread: set[Path] = field(default_factory=set)
    lists: dict[Path, list[str]] = field(default_factory=dict)
    image_ids: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.deletable or self.shared)

    @property
    def deletable(self) -> bool:
        """Whether there is something that holds nothing of others."""
        return bool(self.pictures or self.beside or self.lists)

    def __ior__(self, other: SubjectFiles) -> SubjectFiles:
        for name, values in vars(other).items():
            getattr(self, name).update(values)
        return self


def batches(inbox: Path, files: Iterable[Path]) -> list[dict[str, Path]]:
    """Return the files of each batch of an inbox, by their names in it."""
    found: dict[tuple[str, ...], dict[str, Path]] = defaultdict(dict)
    for file in files:
        parts = file.relative_to(inbox).parts
        if parts[0] == BAD and len(parts) == 2:
            continue  # a list, which `listed` reads
        depth = 3 if parts[0] in (TAKEN, DONE, BAD) else 1
        batch = parts[:depth][-2:] if len(parts) > depth else (*parts[1:-1], LOOSE)
        found[batch]["/".join(parts[depth:] or parts[-1:])] = file
    return list(found.values())


def listed(inbox: Path, subject: Subject, found: SubjectFiles) -> SubjectFiles:
    """Return what the inbox's lists of files that were set aside say about the subject and about files `found`."""
    result, files = SubjectFiles(), found.pictures | found.beside
    for file in sorted((inbox / BAD).glob("*.json")):
        places = [inbox / area / file.stem for area in (TAKEN, DONE, BAD)]
        try:
            names = [*dict(json.loads(file.read_bytes()))]
        except (OSError, ValueError, TypeError):
            result.unread.add(file)
            continue
        theirs = [
            name
            for name in names
            if subject.lies_in(PurePosixPath(name.partition("/")[2]))
            or not files.isdisjoint(place / name for place in places)
        ]
        result.lists.update({file: theirs} if theirs else {})
    return result


def unlist(file: Path, names: Iterable[str]) -> None:
    """Remove entries from a list of files that were set aside."""
    left = {name: reason for name, reason in json.loads(file.read_bytes()).items() if name not in set(names)}
    write_atomically(file, json.dumps(left, indent=1))


def files_of(source: Mapping[str, Path], subject: Subject, *, named: bool = True) -> SubjectFiles:
    """Return the files that are about the subject, of a source's files by their names in it.

    With `named`, it is one of photos as people give them: folders may name a person, and tables the labels of photos.
    """
    found = SubjectFiles()
    pictures: dict[str, str] = {}
    for name, file in source.items():
        try:
            with file.open("rb") as stream:
                start = stream.peek(512)
                if start.startswith((PARQUET, ARROW)) or is_packed(start):
                    found |= _in_shard(file, subject)
                elif is_picture_name(name) or is_picture_start(start):
                    pictures[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            continue  # a link to nothing
        except FAULTS:
            found.unread.add(file)
    shown = {name for name in pictures if not _shows_landmarks(name, source)}
    theirs = {name for name in shown if subject.shows(pictures[name])}
    theirs |= {name for name in source if named and subject.lies_in(PurePosixPath(name))}
    beside = _fitting(shown, source)
    naming = {name for name, fits in beside.items() if subject.names(_identity_beside(name, fits, source[name]))}
    theirs.update(beside[name][0] for name in naming if len(beside[name]) == 1)
    tables = [name for name in source if named and name.lower().endswith(TABLES) and name not in beside]
    joined = {name: _Table(name, source[name], shown) for name in tables}
    for table in joined.values():
        theirs |= {name for name, labels in table.joined.labels.items() if subject.names(labels.identity)}
    about = {
        name: [fit in theirs for fit in fits] + [name in naming] * (len(fits) > 1) for name, fits in beside.items()
    }
    about |= {name: table.about(subject, theirs) for name, table in joined.items()}
    for name in (*theirs, *(name for name, each in about.items() if any(each))):
        if not all(about.get(name, ())) and name not in theirs:
            found.shared.add(source[name])
        elif name in shown:
            found.pictures.add(source[name])
            found.image_ids.add(pictures[name])
        elif source[name] not in found.shared:
            found.beside.add(source[name])
    return found


def _in_shard(file: Path, subject: Subject) -> SubjectFiles:
    """Return an archive or a table as shared where it has rows or pictures of the subject."""
    rows = rows_in(file, subject)
    found = SubjectFiles(image_ids=set(rows.image_ids) if rows is not None else set())
    try:
        for identity, name, image_id in _photos_in(file) if rows is None else ():
            if subject.names(identity) or subject.shows(image_id) or subject.lies_in(PurePosixPath(name)):
                found.image_ids.add(image_id)
    except (Unreadable, UserError):
        found.unread.add(file)
    found.shared.update([file] if found.image_ids else ())
    return found


def _photos_in(file: Path) -> Iterator[tuple[str | None, str, str]]:
    """Yield person, name and sha256 of the pictures in an archive or a table; raise Unreadable where it is damaged."""
    layout = "webdataset" if is_tar_name(file.name) else "huggingface" if picture_column(file) else None
    if layout is None:
        with file.open("rb") as packed:
            for name, stream in contents(packed, file.name):
                if is_picture_name(name) or is_picture_start(stream.peek(16)):
                    yield None, name, hashlib.file_digest(stream, "sha256").hexdigest()
        return
    source = Source(file.parent, layout, only=file.name)
    for item in source.contents(source.read(_LARGEST), _LARGEST):
        if isinstance(item, Content):
            yield item.photo.labels.identity, item.photo.file_name.removeprefix(f"{file.name}/"), item.image_id
        elif item.reason == BROKEN_SHARD:
            raise Unreadable(item.reason)


class _Table:
    """A table of labels: its entries, and the photos of its source that they name."""

    def __init__(self, name: str, file: Path, pictures: Iterable[str]) -> None:
        self.joined = TableJoin(Members(pictures))
        try:
            self._entries = [entry for entry in table_of(file) if not isinstance(entry, str)]
            self.joined.add(name, [*self._entries])
        except (ValueError, OSError, UserError):
            self._entries = []
        self._labels = [f"{row_name(name)}[{number}]" for number in range(1, len(self._entries) + 1)]

    def about(self, subject: Subject, photos: set[str]) -> list[bool]:
        """Return for each entry whether it is about the subject or one of these photos."""
        named = {label for photo, label in self.joined.entries.items() if photo in photos}
        return [
            label in named
            or subject.names(labels_of(entry)[0].identity)
            or any(subject.lies_in(PurePosixPath(path)) for path in paths_in(entry))
            for label, entry in zip(self._labels, self._entries, strict=True)
        ]


def _fitting(pictures: Iterable[str], source: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return for each file that a picture's name fits, in any form, the pictures that it fits; it may be about them."""
    folders: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    shown = set(pictures)
    for path in source:
        folder, _, name = path.rpartition("/")
        folders[folder][path not in shown].append(name)
    return {
        f"{folder}/{name}" if folder else name: [f"{folder}/{fit}" if folder else fit for fit in fits]
        for folder, (photos, others) in folders.items()
        for name, fits in owners(photos, others).items()
        if fits
    }


def _identity_beside(name: str, fits: list[str], file: Path) -> str | None:
    """Return the person that a label file of photos names."""
    with suppress(OSError):
        if name.lower().endswith(BESIDE) and file.stat().st_size <= DESCRIPTION_BYTES:
            return sidecar_labels(fits[0], [(name, file.read_bytes())])[0].identity
    return None


def _shows_landmarks(name: str, source: Mapping[str, Path]) -> bool:
    """Whether a picture is the landmarks of the photo of its name, as it is where there is an embedding, too."""
    stem, _, suffix = name.rpartition(".")
    return suffix == "png" and f"{stem}.pt" in source and any(f"{stem}.{other}" in source for other in ("jpg", "jpeg"))

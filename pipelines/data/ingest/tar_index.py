"""Index the members of a tar shard: join its label files and tables to its pictures, whatever their order."""

from __future__ import annotations

import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator

from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.label_files import (
    CAPTION_BYTES,
    CAPTIONS,
    DESCRIPTION_BYTES,
    TABLE_BYTES,
    TABLES,
    UNREAD,
    describes_one_photo,
    holds_no_labels,
    is_text,
    may_hold_labels,
    parse_table,
)
from pipelines.data.ingest.label_join import NO_PHOTO, SEVERAL, Members, TableJoin, owners
from pipelines.data.ingest.photo_files import (
    SIGNATURE_BYTES,
    Labels,
    Skipped,
    Unmatched,
    is_picture_name,
    is_picture_start,
    is_tar_name,
    row_name,
)
from pipelines.data.ingest.sidecars import BESIDE, UNREAD_FORMAT, not_joined, sidecar_labels
from pipelines.data.ingest.walk import HIDDEN, NO_PICTURE, NOT_REGULAR, UNPAIRED_TEXT

TOO_MANY_LABELS = f"label files of more than {TABLE_BYTES // 2**20} MB in one archive; split it"
IN_ARCHIVE_TWICE = "member that an archive holds more than once under one name"


class ShardIndex:
    """The pictures of a shard and their labels; in memory are their names, and until `join` the label files.

    `pictures`: name as stored → name without "./"; `labels`: the latter → labels.
    """

    def __init__(self, prefix: str, max_bytes: int) -> None:
        self.pictures: dict[str, str] = {}
        self.labels: dict[str, Labels] = {}
        self._prefix, self._max_bytes = prefix, max_bytes
        self._beside: dict[str, bytes] = {}
        self._tables: dict[str, bytes] = {}
        # Other members, with `_label_like` of each: a text beside a photo may be its label, whatever it says.
        self._others: dict[str, bool | None] = {}
        self._left: list[Skipped] = []
        self._held = 0  # bytes of label files

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Add a member, with its content where that is labels; `archive` is at this member."""
        plain = posixpath.normpath(member.name)
        suffix = posixpath.splitext(plain)[1].lower()
        is_label = suffix in (*BESIDE, *TABLES, *UNREAD)
        reason = self._problem(member, plain, suffix, is_label)
        if reason is None and is_label:
            (self._beside if suffix in BESIDE else self._tables)[plain] = _content(archive, member)
        elif reason is None:
            # In a compressed archive, a member can be read only once.
            start = b"" if is_picture_name(plain) else _content(archive, member, CAPTION_BYTES)
            if is_picture_name(plain) or is_picture_start(start[:SIGNATURE_BYTES]):
                self.pictures[member.name] = plain
            else:
                self._others[plain] = _label_like(plain, start)
        if reason is not None:
            name = self._name(member.name)
            self._left.append(Unmatched(name, reason, name) if is_label and reason != HIDDEN else Skipped(name, reason))

    def _problem(self, member: tarfile.TarInfo, plain: str, suffix: str, is_label: bool) -> str | None:
        parts = plain.split("/")
        if any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts:
            return HIDDEN
        if not member.isreg() or member.issparse():  # what a sparse file lacks would be written out
            return NOT_REGULAR
        if member.name in self.pictures or plain in self._beside or plain in self._tables:
            return IN_ARCHIVE_TWICE
        limit = TABLE_BYTES if suffix in TABLES else DESCRIPTION_BYTES if is_label else self._max_bytes
        if member.size > limit:
            return TOO_BIG
        if suffix in (*BESIDE, *TABLES):
            self._held += member.size
            if self._held > TABLE_BYTES:
                return TOO_MANY_LABELS
        return UNREAD_FORMAT if suffix in UNREAD else None

    def join(self) -> Iterator[Skipped]:
        """Join the labels, release the contents of label files, and yield the members that are neither."""
        pictures: dict[str, list[str]] = defaultdict(list)
        beside: dict[str, list[str]] = defaultdict(list)
        others: dict[str, list[str]] = defaultdict(list)
        members = ((self.pictures.values(), pictures), (self._beside, beside), (self._others, others))
        for names, folders in members:
            for name in names:
                folders[posixpath.dirname(name)].append(posixpath.basename(name))
        own: dict[str, list[str]] = defaultdict(list)
        for folder, files in beside.items():
            for file, fitting in owners(pictures[folder], files).items():
                places = [posixpath.join(folder, picture) for picture in fitting]
                self._assign(posixpath.join(folder, file), places, own)
        for folder, files in others.items():
            for file, fitting in owners(pictures[folder], files).items():
                name = posixpath.join(folder, file)
                if (like := self._others[name]) or (like is False and fitting):
                    self._leave(name, UNREAD_FORMAT)
                else:
                    self._left.append(Skipped(self._name(name), NO_PICTURE))
        for picture, files in own.items():
            contents = [(self._name(file), self._beside[file]) for file in files]
            labels, left = sidecar_labels(self._name(picture), contents)
            self.labels[picture] = labels.updated(self.labels.get(picture, Labels()))
            self._left += left
        self._join_tables()
        self._beside.clear()
        self._tables.clear()
        self._others.clear()
        yield from self._left
        self._left.clear()

    def _assign(self, file: str, fitting: list[str], own: dict[str, list[str]]) -> None:
        is_caption = file.lower().endswith(CAPTIONS)
        if len(fitting) == 1:
            own[fitting[0]].append(file)
        elif fitting:
            self._leave(file, SEVERAL)
            for picture in fitting if not is_caption else ():
                earlier = self.labels.get(picture, Labels())
                self.labels[picture] = earlier.updated(not_joined(self._name(file)))
        elif is_caption or describes_one_photo(self._beside[file]):
            self._leave(file, UNPAIRED_TEXT if is_caption else NO_PHOTO)
        else:
            self._tables[file] = self._beside[file]

    def _join_tables(self) -> None:
        tables = TableJoin(Members(self.pictures.values()), prefix=f"{self._prefix}/")
        for file, raw in self._tables.items():
            try:
                if not tables.add(file, list(parse_table(file, raw))):
                    self._leave(file, NO_PHOTO)
            except ValueError as error:
                self._leave(file, str(error))
        self._left += tables.left
        for picture, labels in tables.labels.items():
            self.labels[picture] = self.labels.get(picture, Labels()).updated(labels)

    def _leave(self, file: str, reason: str) -> None:
        self._left.append(Unmatched(self._name(file), reason, self._name(file)))

    def _name(self, member: str) -> str:
        return f"{self._prefix}/{row_name(member)}"


def _label_like(plain: str, start: bytes) -> bool | None:
    """Return whether a member mentions labels (True) or is another text (False); None where it is neither."""
    if holds_no_labels(posixpath.basename(plain)) or not start:
        return None
    return True if may_hold_labels(plain, start) or is_tar_name(plain) else False if is_text(start) else None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int = -1) -> bytes:
    stream = archive.extractfile(member)
    return b"" if stream is None else stream.read(size)

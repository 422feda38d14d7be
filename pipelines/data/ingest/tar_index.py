"""Index a tar shard: sort its members as the files of folders are, and join their labels, whatever their order."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.folders import add_table, join_labels
from pipelines.data.ingest.label_files import (
    CAPTION_BYTES,
    DESCRIPTION_BYTES,
    TABLE_BYTES,
    TABLES,
    UNREAD,
    describes_one_photo,
    holds_no_labels,
    is_text,
    may_hold_labels,
)
from pipelines.data.ingest.label_join import NO_PHOTO, Members, TableJoin
from pipelines.data.ingest.photo_files import SIGNATURE_BYTES, FoundPhoto, Skipped, Unmatched, is_picture_name, row_name
from pipelines.data.ingest.sidecars import BESIDE, sort_files, suffix_of, unmatched
from pipelines.data.ingest.walk import HIDDEN, NOT_REGULAR, Entry

IN_ARCHIVE_TWICE = "member that an archive holds more than once under one name"
TOO_MANY_LABELS = f"label files of more than {TABLE_BYTES // 2**20} MB in one archive; split it"


@dataclass(frozen=True)
class Member(Entry):
    """A member of an archive: `relative` is its name without "./", `stored` with it, `path` that of the archive.

    `content`: of a label file all bytes, of a picture none, of others the first, more where they may be labels.
    """

    stored: str
    number: int
    content: bytes

    def opened(self) -> BinaryIO:
        """Return what is kept of the content."""
        return io.BytesIO(self.content)


class ShardIndex:
    """The members of a shard; in memory are the names of all, and the contents of label files."""

    def __init__(self, shard: Entry, max_bytes: int) -> None:
        self._path, self._prefix, self._max_bytes = shard.path, row_name(shard.relative), max_bytes
        self._folders: dict[str, list[Entry | Skipped]] = defaultdict(list)
        self._members: dict[str, Member] = {}
        self._held = 0  # bytes of contents

    def add(self, number: int, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Add a member, by its number, with its content where that may be labels; `archive` is at this member."""
        plain = posixpath.normpath(member.name)
        suffix = posixpath.splitext(plain)[1].lower()
        reason, content = self._problem(member, plain, suffix), b""
        if reason is None and not is_picture_name(plain):
            # In a compressed archive, a member can be read only once.
            is_label = suffix in (*BESIDE, *TABLES)
            content = content_of(archive, member, -1 if is_label else CAPTION_BYTES)
            if not (is_label or may_hold_labels(plain, content) or is_text(content)) or holds_no_labels(
                posixpath.basename(plain)
            ):
                content = content[:SIGNATURE_BYTES]
            self._held += len(content)
            reason = TOO_MANY_LABELS if self._held > TABLE_BYTES else None
        files, name = self._folders[posixpath.dirname(plain)], row_name(member.name)
        if reason is None:
            self._members[plain] = Member(plain, self._path, member.size, member.name, number, content)
            files.append(self._members[plain])
        elif reason == TOO_MANY_LABELS or (suffix in UNREAD and reason != HIDDEN):
            files.append(Unmatched(name, reason, name))
        else:
            files.append(Skipped(name, reason))

    def _problem(self, member: tarfile.TarInfo, plain: str, suffix: str) -> str | None:
        parts = plain.split("/")
        if any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts:
            return HIDDEN
        if not member.isreg() or member.issparse():  # what a sparse file lacks would be written out
            return NOT_REGULAR
        if plain in self._members:
            return IN_ARCHIVE_TWICE
        is_label = suffix in (*BESIDE, *UNREAD)
        limit = TABLE_BYTES if suffix in TABLES else DESCRIPTION_BYTES if is_label else self._max_bytes
        return TOO_BIG if member.size > limit else None

    def photos(self) -> Iterator[FoundPhoto | Skipped]:
        """Yield the members that are neither pictures nor joined, and the pictures with their labels, in order."""
        every = [sort_files(files) for files in self._folders.values()]
        pictures = {picture.relative: files for files in every for picture in files.pictures}
        tables = TableJoin(Members(pictures))
        for files in every:
            for item in files.tables:
                # In this convention, the JSON of a sample without a picture describes no other one.
                alone = suffix_of(item) in BESIDE and describes_one_photo(item.start(DESCRIPTION_BYTES) or b"")
                tables.left += [unmatched(item, NO_PHOTO)] if alone else add_table(tables, item)
        yield from self._shown(item for files in every for item in files.rest)
        yield from self._shown(tables.left)
        for name, member in self._members.items():
            if name in pictures:
                labels, left = join_labels(member, pictures[name], tables)
                yield from self._shown(left)
                shown = f"{self._prefix}/{row_name(member.stored)}"
                yield FoundPhoto(shown, member.path, member.n_bytes, labels, member.number)

    def _shown(self, items: Iterable[Skipped]) -> Iterator[Skipped]:
        """Yield items with the name of the shard before their own."""
        for item in items:
            name = f"{self._prefix}/{item.file_name}"
            if isinstance(item, Unmatched):
                yield Unmatched(name, item.reason, f"{self._prefix}/{item.label}")
            else:
                yield Skipped(name, item.reason)


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int = -1) -> bytes:
    """Return the first bytes of a member, or all of them; the archive must not be read further before."""
    stream = archive.extractfile(member) if size else None
    return b"" if stream is None else stream.read(size)

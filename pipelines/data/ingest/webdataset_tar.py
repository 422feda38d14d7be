"""Read tar shards in webdataset's convention: the members with the same key form one sample, in whatever order.

`0001.jpg`, `0001.txt`, `0001.json` are a sample. The text has the prompt in line 1 and the face prompt in line 2; the
JSON may hold `identity`, `prompt`, `face_prompt`, `source`, `licence`, `consent` and overrides the text. Archives,
plain or compressed, are read twice: first the names and labels, later the pictures, one at a time. Nothing is unpacked
to disk, links inside an archive are not followed, and members above the size limit are skipped.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipelines.core.paths import refuse_pointers
from pipelines.data.ingest.contents import BROKEN_SHARD, SHARD_ERRORS, Members
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, is_tar_name, row_name
from pipelines.data.ingest.sidecars import beside_shards
from pipelines.data.ingest.tar_index import ShardIndex, content_of
from pipelines.data.ingest.walk import DENIED, Entry, each_file

NOT_IN_ARCHIVE = "not a tar shard"
# The first bytes of compressed files, and what unpacks them.
COMPRESSED: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# A compressed archive is read up to this many times its size: photos are compressed already.
_RATIO, _UNPACKED = 100, 2**28


class _Member(tarfile.TarInfo):
    """A member that raises ReadError on a damaged header, which tarfile itself takes for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end of the archive
                raise
            raise tarfile.ReadError(str(error)) from None


def read_shards(root: Path, only: str | None, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos of every tar shard under `root` (or of the file `only` in it), in the order of shard names.

    `file_name` is "<shard>/<member>". Members above `max_bytes` are skipped.
    """
    for item in each_file(root, only):
        if isinstance(item, Skipped):
            yield item
        elif is_tar_name(item.relative):
            yield from _read_shard(item, max_bytes)
        else:
            yield beside_shards(item, NOT_IN_ARCHIVE)


def _read_shard(shard: Entry, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
    refuse_pointers([Path(shard.path)])
    index = ShardIndex(shard, max_bytes)
    fault: Exception | None = None
    try:
        for number, archive, member in _members(shard.path):
            index.add(number, archive, member)
    except SHARD_ERRORS as error:
        fault = error
    yield from index.photos()
    if fault is not None:
        denied = isinstance(fault, PermissionError)
        yield Skipped(row_name(shard.relative), DENIED if denied else BROKEN_SHARD)


def members_of(shard: str) -> Members:
    """Yield number and reader of every regular member of an archive."""
    for number, archive, member in _members(shard):
        if member.isreg():
            yield number, partial(content_of, archive, member)


def _members(shard: str) -> Iterator[tuple[int, tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of an archive, numbered; a plain one is read by seeking, a compressed one as a stream."""
    most = _RATIO * Path(shard).stat().st_size + _UNPACKED
    with _opened(shard) as archive:
        for number, member in enumerate(archive):
            if member.offset_data + member.size > most:
                raise tarfile.ReadError("it unpacks to far more than its size")
            archive.members.clear()  # type: ignore[attr-defined]  # a shard may hold a million members
            if not member.isdir():
                yield number, archive, member


@contextmanager
def _opened(shard: str) -> Iterator[tarfile.TarFile]:
    with open(shard, "rb") as raw:  # noqa: PTH123 (names that are not UTF-8)
        start = raw.read(8)
        unpack = next((unpack for mark, unpack in COMPRESSED.items() if start.startswith(mark)), None)
        raw.seek(0)
        mode: Literal["r:", "r|"] = "r:" if unpack is None else "r|"
        # Not tarfile's own way to unpack: it copies what is left of a block for every read.
        with (
            unpack(raw) if unpack else nullcontext(raw) as plain,
            tarfile.open(fileobj=plain, mode=mode, bufsize=2**16, tarinfo=_Member, encoding="utf-8") as archive,
        ):
            yield archive

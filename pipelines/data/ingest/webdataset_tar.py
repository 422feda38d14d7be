"""Read tar shards in webdataset's convention: successive members with the same key form one sample.

`0001.jpg`, `0001.txt`, `0001.json` share the key `0001` (the name up to the first dot of its last part). The text has
the prompt in line 1 and the face prompt in line 2; the JSON may hold `identity`, `prompt`, `face_prompt`, `source`,
`licence`, `consent` and overrides the text. Archives are read as streams, plain or compressed: nothing is unpacked to
disk, links inside an archive are not followed, and members above the size limit are skipped.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.data.ingest.consistentid import labels_of
from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.folders import parse_sidecar
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, is_picture_name, is_picture_start, row_name
from pipelines.data.ingest.walk import NO_PICTURE, NOT_REGULAR, Entry, each_file

TAR_SUFFIXES: tuple[str, ...] = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN_ARCHIVE = "archive that cannot be read to its end; the photos before the fault are rows"
IN_ARCHIVE_TWICE = "member that an archive holds more than once under one name"
NOT_IN_ARCHIVE = "not a tar shard"
BAD_JSON = "JSON of a sample that is no object in UTF-8"
_TEXT_BYTES = 1024 * 1024


@dataclass
class _Sample:
    """The members of one key, until the next key begins."""

    key: str
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    text: bytes | None = None
    labels: list[tuple[str, bytes]] = field(default_factory=list)


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


def is_tar_name(name: str) -> bool:
    """Whether the suffix of this name is that of a tar shard."""
    return name.lower().endswith(TAR_SUFFIXES)


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
            yield Skipped(row_name(item.relative), NOT_IN_ARCHIVE)


def _read_shard(shard: Entry, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
    prefix = row_name(shard.relative)
    seen: set[str] = set()
    sample = _Sample("")
    try:
        with tarfile.open(shard.path, mode="r|*", tarinfo=_Member, encoding="utf-8") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # a stream needs no index; a shard may hold a million members
                name = f"{prefix}/{row_name(member.name)}"
                if member.isdir():
                    continue
                if (key := _key(member.name)) != sample.key:
                    yield from _finish(sample)
                    sample = _Sample(key)
                if problem := _problem(member, name, seen, max_bytes):
                    yield Skipped(name, problem)
                    continue
                seen.add(name)
                stream = archive.extractfile(member)
                if stream is None or not _gather(sample, name, stream.read()):
                    yield Skipped(name, NO_PICTURE)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield from _finish(sample)
        denied = isinstance(error, PermissionError)
        yield Skipped(prefix, "permission denied" if denied else BROKEN_ARCHIVE)
        return
    yield from _finish(sample)


def _key(member: str) -> str:
    folder, slash, base = member.rpartition("/")
    return f"{folder}{slash}{base.split('.', 1)[0]}"


def _problem(member: tarfile.TarInfo, name: str, seen: set[str], max_bytes: int) -> str | None:
    if not member.isreg():
        return NOT_REGULAR
    if name in seen:
        return IN_ARCHIVE_TWICE
    limit = _TEXT_BYTES if name.lower().endswith((".txt", ".json")) else max_bytes
    return TOO_BIG if member.size > limit else None


def _gather(sample: _Sample, name: str, data: bytes) -> bool:
    """Add a member to its sample; return False where it is not of a known kind."""
    if is_picture_name(name) or is_picture_start(data):
        sample.pictures.append((name, data))
    elif name.lower().endswith(".json"):
        sample.labels.append((name, data))
    elif name.lower().endswith(".txt") and sample.text is None:
        sample.text = data
    else:
        return False
    return True


def _finish(sample: _Sample) -> Iterator[FoundPhoto | Skipped]:
    """Yield the pictures of a complete sample with its labels, and faulty texts as Skipped."""
    labels = Labels()
    if sample.text is not None:
        prompt, face_prompt, problem = parse_sidecar(sample.text)
        labels = Labels(prompt=prompt, face_prompt=face_prompt)
        if problem and sample.pictures:
            yield Skipped(f"{sample.pictures[0][0]} (its text)", problem)
    for name, data in sample.labels:
        try:
            tree = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            yield Skipped(name, BAD_JSON)
            continue
        labels = labels.updated(labels_of(tree))
    for name, data in sample.pictures:
        yield FoundPhoto(name, None, data, len(data), labels)

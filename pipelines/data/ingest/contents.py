"""Read and hash pictures ahead of the writer, in order and with bounded memory."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipelines.core.paths import refuse_pointer
from pipelines.data.ingest.parquet_files import FAULTS, Unpacks
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, Unmatched
from pipelines.data.ingest.walk import Entry, why_unreadable

TOO_BIG = "larger than ingest.max_file_mb"
BROKEN_SHARD = "shard that cannot be read to its end; the photos before the fault are rows"
SHARD_ERRORS = (*FAULTS, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_THREADS = 4
_AHEAD = 64
_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Content:
    """A picture's bytes and their sha256 (hex): its `image_id`."""

    photo: FoundPhoto
    data: bytes
    image_id: str


# Of a shard: the number of each member that may be a picture, and how to read it: its bytes, the file that it names, or
# why there is neither.
Members = Iterator[tuple[int, Callable[[], bytes | Entry | Skipped]]]


def read_contents(
    items: Iterable[FoundPhoto | Skipped], max_bytes: int, members: Callable[[str], Members] | None = None
) -> Iterator[Content | Skipped]:
    """Yield the content of every photo in the order given; one that cannot be read becomes Skipped.

    `members` opens the shard at a path, for photos that are in one. Threads read and hash up to about 64 MB, or one
    larger picture, ahead of the consumer. Raises UserError for the first picture that git-lfs did not fetch: the others
    of its repository lack their bytes, too.
    """
    pending: deque[tuple[int, Future[Content | Skipped] | Skipped]] = deque()
    ahead = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for photo, data in _loaded(items, members):
                size = 0 if isinstance(photo, Skipped) else len(data or b"") or photo.n_bytes
                while pending and (len(pending) >= _AHEAD or ahead + size > _AHEAD_BYTES):
                    done, result = pending.popleft()
                    ahead -= done
                    yield result if isinstance(result, Skipped) else result.result()
                read = photo if isinstance(photo, Skipped) else pool.submit(_read, photo, data, max_bytes)
                pending.append((size, read))
                ahead += size
            while pending:
                _, result = pending.popleft()
                yield result if isinstance(result, Skipped) else result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _loaded(
    items: Iterable[FoundPhoto | Skipped], members: Callable[[str], Members] | None
) -> Iterator[tuple[FoundPhoto | Skipped, bytes | None]]:
    """Yield photos, those in shards with their bytes; photos of a shard are neighbours, in its order."""
    shard = ""
    opened: Members = iter(())
    for item in items:
        if isinstance(item, Skipped) or item.member is None or members is None:
            yield item, None
            continue
        if item.path != shard:
            shard, opened = item.path, members(item.path)
        try:
            read = next((read for number, read in opened if number == item.member), None)
            found = Skipped(item.file_name, BROKEN_SHARD) if read is None else read()
        except SHARD_ERRORS as error:
            found = Skipped(item.file_name, str(error) if isinstance(error, Unpacks) else BROKEN_SHARD)
        if isinstance(found, bytes):
            yield item, found
        elif isinstance(found, Entry):
            yield replace(item, path=found.path, n_bytes=found.n_bytes), None
        elif item.labels == Labels():
            yield Skipped(item.file_name, found.reason), None
        else:
            yield Unmatched(item.file_name, found.reason, item.file_name), None


def _read(photo: FoundPhoto, data: bytes | None, max_bytes: int) -> Content | Skipped:
    try:
        if data is None and photo.n_bytes <= max_bytes:
            with open(photo.path, "rb") as file:  # noqa: PTH123 (names that are not UTF-8)
                data = file.read(max_bytes + 1)
    except OSError as error:
        return Skipped(photo.file_name, why_unreadable(error))
    if data is None or len(data) > max_bytes:
        return Skipped(photo.file_name, TOO_BIG)
    refuse_pointer(data, photo.path)
    return Content(photo, data, hashlib.sha256(data).hexdigest())

"""Read and hash files ahead of the writer, in order and with bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.core.paths import refuse_pointer
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped
from pipelines.data.ingest.walk import DENIED, MISSING

TOO_BIG = "larger than ingest.max_file_mb"
_THREADS = 4
_AHEAD = 64
_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Content:
    """A picture's bytes and their sha256 (hex): its `image_id`."""

    photo: FoundPhoto
    data: bytes
    image_id: str


def read_contents(items: Iterable[FoundPhoto | Skipped], max_bytes: int) -> Iterator[Content | Skipped]:
    """Yield the content of every photo in the order given; one that cannot be read becomes Skipped.

    Raises UserError for the first one that git-lfs did not fetch: the others of its repository lack their bytes, too.

    Threads read and hash up to about 64 MB, or one larger file, ahead of the consumer.
    """
    pending: deque[tuple[int, Future[Content | Skipped] | Skipped]] = deque()
    ahead = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for item in items:
                size = 0 if isinstance(item, Skipped) else item.n_bytes
                while pending and (len(pending) >= _AHEAD or ahead + size > _AHEAD_BYTES):
                    done, result = pending.popleft()
                    ahead -= done
                    yield result if isinstance(result, Skipped) else result.result()
                pending.append((size, item if isinstance(item, Skipped) else pool.submit(_read, item, max_bytes)))
                ahead += size
            while pending:
                _, result = pending.popleft()
                yield result if isinstance(result, Skipped) else result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(photo: FoundPhoto, max_bytes: int) -> Content | Skipped:
    data = photo.data
    if data is None:
        if photo.path is None:
            raise ValueError(f"{photo.file_name}: neither a path nor bytes; a reader must give one of them")
        if photo.n_bytes > max_bytes:
            return Skipped(photo.file_name, TOO_BIG)
        try:
            with open(photo.path, "rb") as file:  # noqa: PTH123 (names that are not UTF-8)
                data = file.read(max_bytes + 1)
        except PermissionError:
            return Skipped(photo.file_name, DENIED)
        except FileNotFoundError:
            return Skipped(photo.file_name, MISSING)
        except OSError as error:
            return Skipped(photo.file_name, f"cannot be read: {error.strerror}")
        if len(data) > max_bytes:
            return Skipped(photo.file_name, TOO_BIG)
    refuse_pointer(data, photo.path or photo.file_name)
    return Content(photo, data, hashlib.sha256(data).hexdigest())

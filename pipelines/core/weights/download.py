"""Fetch one file from a server or a folder so that it appears under its name whole and checked, or not at all.

What arrives goes to a hidden file beside the target. A download that ended before, however it ended, continues there:
huggingface_hub's own `hf_hub_download` writes to a name of its own in every process and starts again, and pooch has no
resumption at all, so this uses the function below both, `http_get` (ranges, 429, stalls), which serves any address.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.files import sha256
from pipelines.core.weights.lock import LockedFile, Trust

# How often in a row a download may bring nothing; as in huggingface_hub.
_TRIES = 5
_AGAIN = "what has arrived is kept: run the command again to continue"
_ELSEWHERE = "HF_ENDPOINT names a mirror of the Hub, --from DIR takes the files from a folder"
_ACCOUNT = "it needs an account: accept its terms on its page and set HF_TOKEN"
_ADVICE = {
    401: _ACCOUNT,
    403: _ACCOUNT,
    404: f"there is no such file or revision; {_ELSEWHERE}",
    429: f"it asks to wait; {_AGAIN} later",
}


@dataclass(frozen=True)
class Origin:
    """Where a file comes from (`url` with `headers`, or the `file` of a folder), and what is known of it.

    `sha256` may be the first digits of it; `blob` is git's name of the content, which the Hub gives for small files.
    `trust` says what these were published by, `expected_by` the same for messages, with what to do.
    """

    url: str | None = None
    file: Path | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    bytes: int | None = None
    sha256: str | None = None
    blob: str | None = None
    trust: Trust = "first use"
    expected_by: str = ""

    @property
    def name(self) -> str:
        """Return the address or path, for messages."""
        return str(self.file or self.url)


def part_of(target: Path, origin: Origin) -> Path:
    """Return the file into which `origin` is fetched for `target`; other content has another."""
    known = f"{origin.sha256}{origin.blob}{origin.bytes}{origin.name if origin.sha256 is None else ''}"
    return target.with_name(f".{target.name}.{hashlib.sha256(known.encode()).hexdigest()[:12]}.part")


def fetch_file(origin: Origin, target: Path, bar: Callable[..., Any] | None = None) -> LockedFile:
    """Bring `target` from `origin`, continuing what an earlier call left; return its size and sha256.

    `bar` makes a progress bar, as tqdm's class does. Raises StageFailed where the source cannot be reached or sends
    something else than is known of the file: then `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.sha256 is not None and target.is_file() and matches(origin.sha256, present := sha256(target)):
        return LockedFile(bytes=target.stat().st_size, sha256=present, trust=origin.trust)
    part = part_of(target, origin)
    arrived = part.stat().st_size if part.is_file() else 0
    if arrived and (origin.bytes is None or arrived > origin.bytes):
        part.unlink()  # it cannot be continued
        arrived = 0
    _bring(origin, part, bar)
    digest = sha256(part)
    problem = _problem(origin, part, digest)
    if problem and arrived:
        part.unlink()  # perhaps the beginning was damaged, as by a power failure
        _bring(origin, part, bar)
        digest = sha256(part)
        problem = _problem(origin, part, digest)
    if problem:
        part.unlink()
        raise StageFailed(f"{target}: {problem}; nothing was written")
    size = part.stat().st_size
    part.replace(target)
    for left in target.parent.glob(f".{target.name}.*.part"):
        left.unlink(missing_ok=True)
    return LockedFile(bytes=size, sha256=digest, trust=origin.trust)


def matches(known: str | None, digest: str) -> bool:
    """Return whether a sha256, or the first digits of it, are those of `digest`; where nothing is known, it is so."""
    return known is None or digest.startswith(known)


def blob_name(file: Path) -> str:
    """Return git's name of a file's content (hex): the sha1 of its size and bytes."""
    digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    digest.update(file.read_bytes())
    return digest.hexdigest()


def _problem(origin: Origin, part: Path, digest: str) -> str | None:
    size = part.stat().st_size
    if origin.bytes is not None and size != origin.bytes:
        return f"{origin.name} has {size:,} bytes, expected {origin.bytes:,}"
    if not matches(origin.sha256, digest):
        expected = f"{origin.sha256}{origin.expected_by}"
        return f"{origin.name} has the sha256 {digest}, expected {expected}: it is another file or damaged"
    if origin.blob is not None and (present := blob_name(part)) != origin.blob:
        return f"{origin.name} has git's name {present}, expected {origin.blob}: it is another file or damaged"
    return None


def _bring(origin: Origin, part: Path, bar: Callable[..., Any] | None) -> None:
    if origin.file is not None:
        shutil.copyfile(origin.file, part)
    else:
        _download(origin, part, bar)


def _download(origin: Origin, part: Path, bar: Callable[..., Any] | None) -> None:
    import httpx2
    from huggingface_hub.file_download import http_get

    # A compressed answer has no ranges.
    headers = {**origin.headers, "Accept-Encoding": "identity"}
    with part.open("ab") as stream, plain_errors(origin.name):
        idle = 0
        while True:
            before = stream.tell()
            try:
                http_get(
                    str(origin.url),
                    stream,  # type: ignore[arg-type]
                    resume_size=before,
                    headers=headers,
                    expected_size=origin.bytes,
                    tqdm_class=bar,  # type: ignore[arg-type]
                )
                return
            except httpx2.ReadError:
                # A reset: http_get tries again only after a stall, or where a server ends a file early.
                idle = 0 if stream.tell() > before else idle + 1
                if idle > _TRIES:
                    raise
                time.sleep(1)
            except OSError as error:
                if isinstance(error, httpx2.HTTPError | ConnectionError) or error.errno is not None:
                    raise
                # http_get counted other bytes than expected: fewer are continued, more are another file.
                stream.flush()
                if not before < stream.tell() < (origin.bytes or 0):
                    return


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn what the network and the server of `what` do wrong in the block into a StageFailed of one line."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        answer = getattr(error, "response", None)
        if answer is None:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StageFailed(f"{what}: cannot be fetched ({reason}); {_AGAIN}; {_ELSEWHERE}") from error
        advice = _ADVICE.get(answer.status_code, f"{_AGAIN}; {_ELSEWHERE}")
        raise StageFailed(f"{what}: the server answers {answer.status_code}; {advice}") from error

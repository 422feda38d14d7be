"""The files of networks that are being fetched, several at once; a network is put to its path when it is complete."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.files import sha256
from pipelines.core.weights.download import Origin, fetch_file, matches
from pipelines.core.weights.lock import LOCK, Lock, LockedFile
from pipelines.core.weights.manifest import Network
from pipelines.core.weights.sources import Located, at_source, in_folder

_ARCHIVE = ".archive.zip"


class Progress:
    """What the caller shows of the bytes that arrive; several threads call it."""

    def begin(self, total: int) -> None:
        """Start with `total` bytes to fetch, as far as they are known."""

    def advance(self, count: int) -> None:
        """Count bytes that arrived, or were there."""


@dataclass
class Job:
    """A network that is being fetched: its origins, the folder that files go to, and those that are done."""

    name: str
    network: Network
    located: Located
    folder: Path
    final: Path
    missing: dict[str, Origin]
    done: dict[str, LockedFile] = field(default_factory=dict)

    def pieces(self) -> Iterator[tuple[str, Origin]]:
        """Yield the files to fetch by name: the archive, if there is one."""
        if self.located.archive is None:
            yield from self.missing.items()
        elif self.missing:
            yield _ARCHIVE, self.located.archive


class _Stopped(Exception):
    """The command ends: the threads stop at their next piece."""


class _Bar:
    """What huggingface_hub takes for a progress bar of one file."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop

    def __call__(self, *, initial: int = 0, **_: Any) -> _Bar:
        """Begin a file of which `initial` bytes are there."""
        self.update(initial)
        return self

    def update(self, count: int) -> None:
        """Count bytes; raise _Stopped where the command ends."""
        if self._stop.is_set():
            raise _Stopped
        self._progress.advance(count)

    def __enter__(self) -> _Bar:
        """Begin the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the block."""


def make_job(root: Path, name: str, network: Network, source: Path | None, lock: Lock) -> Job:
    """Ask the source of a network, or the folder `source`, for its files, and return what is to be fetched."""
    locked = lock.networks.get(name)
    located = at_source(name, network, locked) if source is None else in_folder(name, network, source)
    final = root / network.path
    folder = final if final.is_dir() else final.with_name(f".{final.name}.part")
    job = Job(name, network, located, folder, final, {})
    for file, origin in located.files.items():
        known = _as_locked(name, file, origin, locked.files.get(file) if locked else None)
        present = folder / file
        if known.sha256 is not None and present.is_file() and matches(known.sha256, digest := sha256(present)):
            job.done[file] = LockedFile(bytes=present.stat().st_size, sha256=digest, trust=known.trust)
        else:
            job.missing[file] = known
    return job


def _as_locked(name: str, file: str, origin: Origin, locked: LockedFile | None) -> Origin:
    """Return `origin` with what the lock file knows of the file; raise StageFailed where its source has another."""
    if locked is None:
        return origin
    by = f" by {LOCK} (to take another file, delete {name} there and fetch again)"
    if not matches(origin.sha256, locked.sha256):
        raise StageFailed(f"{name}: {file}: {origin.name} has the sha256 {origin.sha256}, expected {locked.sha256}{by}")
    return replace(origin, bytes=locked.bytes, sha256=locked.sha256, trust=locked.trust, expected_by=by)


def run_jobs(jobs: list[Job], parallel: int, progress: Progress) -> Iterator[tuple[Job, Exception | None]]:
    """Fetch the files of all jobs; yield each job when it is complete, or with the error that ended it."""
    stop = threading.Event()
    bar = _Bar(progress, stop)
    progress.begin(sum(origin.bytes or 0 for job in jobs for _, origin in job.pieces()))
    waiting = {job.name: sum(1 for _ in job.pieces()) for job in jobs}
    failed: set[str] = set()
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        try:
            futures = {
                pool.submit(fetch_file, origin, job.folder / file, bar): (job, file)
                for job in jobs
                for file, origin in job.pieces()
            }
            yield from ((job, _place(job)) for job in jobs if not waiting[job.name])
            for future in as_completed(futures):
                job, file = futures[future]
                waiting[job.name] -= 1
                error = future.exception()
                if isinstance(error, StageFailed | OSError):
                    if job.name not in failed:
                        yield job, error
                    failed.add(job.name)
                    continue
                job.done[file] = future.result()
                if not waiting[job.name] and job.name not in failed:
                    yield job, _place(job)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _place(job: Job) -> Exception | None:
    """Put the files of a job to their path; return the error where the archive lacks one or holds another."""
    try:
        if job.done.pop(_ARCHIVE, None) is not None:
            _unpack(job)
    except (StageFailed, OSError) as error:
        return error
    if job.folder != job.final:
        for left in [path for path in job.folder.rglob("*") if path.is_file()]:
            if left.relative_to(job.folder).as_posix() not in job.done:
                left.unlink()  # of another revision
        job.final.parent.mkdir(parents=True, exist_ok=True)
        job.folder.replace(job.final)
    return None


def _unpack(job: Job) -> None:
    """Take the missing files out of the archive, wherever in it they lie, and delete it."""
    archive = job.folder / _ARCHIVE
    try:
        with zipfile.ZipFile(archive) as packed:
            members = {Path(member).name: member for member in packed.namelist()}
            for file, origin in job.missing.items():
                if (member := members.get(Path(file).name)) is None:
                    raise StageFailed(
                        f"{job.name}: {job.located.source}: no {file} in the archive; nothing was written"
                    )
                loose = job.folder / f".{Path(file).name}.member"
                with packed.open(member) as source, loose.open("wb") as target:
                    shutil.copyfileobj(source, target)
                try:
                    job.done[file] = fetch_file(replace(origin, file=loose), job.folder / file)
                finally:
                    loose.unlink()
    except zipfile.BadZipFile as error:
        raise StageFailed(
            f"{job.name}: {job.located.source}: not a zip archive ({error}); nothing was written"
        ) from None
    finally:
        archive.unlink(missing_ok=True)

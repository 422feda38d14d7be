"""Fetch networks into a checkout, several files at once, and record them in `weights.lock`.

A network that is new appears with all its files at once: until then they are in a hidden folder beside its path. Into a
folder that exists already, missing and wrong files are put one by one.
"""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import sha256
from pipelines.core.locks import hold
from pipelines.core.weights.check import file_faults
from pipelines.core.weights.download import Origin, fetch_file, matches
from pipelines.core.weights.lock import LOCK, Lock, LockedFile, LockedNetwork, read_lock, write_lock
from pipelines.core.weights.manifest import Manifest, Network, read_manifest
from pipelines.core.weights.sources import Located, at_source, go_online, in_folder

_ARCHIVE = ".archive.zip"


class Progress:
    """What the caller shows of the bytes that arrive; several threads call it."""

    def begin(self, total: int) -> None:
        """Start with `total` bytes to fetch, as far as they are known."""

    def advance(self, count: int) -> None:
        """Count bytes that arrived, or were there."""


@dataclass(frozen=True)
class Fetched:
    """A network that is in the checkout; `new`: whether this call fetched files of it.

    `unpublished` names the files whose hash nobody publishes, so that what came first is trusted from now on.
    """

    name: str
    path: str
    bytes: int
    new: bool
    unpublished: tuple[str, ...]


class NotFetched(StageFailed):
    """Networks that are not fetched, with the reason by name in `faults`, and those that are."""

    def __init__(self, faults: dict[str, str], fetched: list[Fetched]) -> None:
        self.faults, self.fetched = faults, fetched
        first = next(iter(faults.values()))
        several = f"{len(faults)} networks are not fetched ({', '.join(faults)}), the first as: "
        super().__init__(f"{several if len(faults) > 1 else ''}{first}")


@dataclass
class _Job:
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


def fetch(
    root: Path,
    names: Collection[str],
    *,
    folder: Path | None = None,
    accepted: Collection[str] = (),
    parallel: int = 4,
    progress: Progress | None = None,
) -> list[Fetched]:
    """Bring the networks `names` to their paths in the checkout `root`, from their sources or from `folder`.

    `accepted` names the licences that a person accepts. What is there and right is not fetched again. Raises UserError,
    before anything is fetched, for unknown names and licences that are not accepted; NotFetched where files of a
    network cannot be fetched or are not the expected ones, after all others were fetched.
    """
    manifest = read_manifest(root)
    networks = {name: network for name in names if not (network := manifest.network(name)).shipped}
    _check_licences(manifest, networks, read_lock(root), accepted)
    busy = StageFailed(f"{root / LOCK}: another `dynamicid weights fetch` is running here; wait until it ends")
    with hold(root / ".dynamicid" / "weights.busy", busy):
        return _fetch(root, manifest, networks, folder=folder, parallel=parallel, progress=progress or Progress())


def _check_licences(manifest: Manifest, networks: dict[str, Network], lock: Lock, accepted: Collection[str]) -> None:
    if unknown := sorted(set(accepted) - set(manifest.licences)):
        known = ", ".join(name for name, licence in manifest.licences.items() if licence.accept)
        raise UserError(f"--accept {unknown[0]}: no such licence in the manifest; those to accept: {known}")
    open_ones: dict[str, list[str]] = {}
    for name, network in networks.items():
        if network.licence is None or not manifest.licences[network.licence].accept or network.licence in accepted:
            continue
        before = lock.networks.get(name)
        if before is None or not before.accepted or before.licence != network.licence:
            open_ones.setdefault(network.licence, []).append(name)
    if open_ones:
        texts = [
            f"{licence} of {', '.join(named)} ({manifest.licences[licence].note} {manifest.licences[licence].page})"
            for licence, named in open_ones.items()
        ]
        accept = " ".join(f"--accept {licence}" for licence in open_ones)
        raise UserError(f"licences to accept first: {'; '.join(texts)}; read them, then add {accept}")


def _fetch(
    root: Path,
    manifest: Manifest,
    networks: dict[str, Network],
    *,
    folder: Path | None,
    parallel: int,
    progress: Progress,
) -> list[Fetched]:
    lock = read_lock(root)
    fetched: dict[str, Fetched] = {}
    faults: dict[str, str] = {}
    jobs: list[_Job] = []
    for name, network in networks.items():
        locked = lock.networks.get(name)
        if locked is not None and _covers(locked, network) and not file_faults(root / network.path, locked.files):
            fetched[name] = _fetched(name, network, locked, new=False)
        elif not network.files and (root / network.path).exists():
            fetched[name] = Fetched(name, network.path, 0, new=False, unpublished=())  # somebody's own
    open_ones = {name: network for name, network in networks.items() if name not in fetched}
    if open_ones and folder is None:
        go_online()
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        asked = {name: pool.submit(_job, root, name, network, folder, lock) for name, network in open_ones.items()}
    for name, answer in asked.items():
        try:
            jobs.append(answer.result())
        except (UserError, StageFailed) as error:
            faults[name] = str(error)
    _check_space(root, jobs)
    for job, fault in _run(jobs, parallel, progress):
        if fault is not None:
            faults[job.name] = str(fault)
            continue
        licence = job.network.licence
        recorded = LockedNetwork(
            source=job.located.source,
            revision=job.located.revision,
            licence=licence,
            accepted=licence is not None and manifest.licences[licence].accept,
            files=job.done,
        )
        # After every network, so that a command that is killed later has not fetched this one for nothing.
        lock = Lock(networks={**lock.networks, job.name: recorded})
        write_lock(root, lock)
        fetched[job.name] = _fetched(job.name, job.network, recorded, new=True)
    if faults:
        raise NotFetched(faults, [fetched[name] for name in networks if name in fetched])
    return [fetched[name] for name in networks]


def _covers(locked: LockedNetwork, network: Network) -> bool:
    """Return whether the lock file has every file that the manifest has now, with the hash that it has now."""
    for pattern, known in network.files.items():
        matching = [file for name, file in locked.files.items() if fnmatchcase(name, pattern)]
        if not matching or not all(matches(known.sha256, file.sha256) for file in matching):
            return False
    return True


def _fetched(name: str, network: Network, locked: LockedNetwork, *, new: bool) -> Fetched:
    unpublished = tuple(file for file, known in locked.files.items() if known.trust == "first use")
    return Fetched(name, network.path, sum(known.bytes for known in locked.files.values()), new, unpublished)


def _job(root: Path, name: str, network: Network, source: Path | None, lock: Lock) -> _Job:
    """Ask the source of a network, or the folder `source`, for its files, and return what is to be fetched."""
    locked = lock.networks.get(name)
    located = at_source(name, network, locked) if source is None else in_folder(name, network, source)
    final = root / network.path
    folder = final if final.is_dir() else final.with_name(f".{final.name}.part")
    job = _Job(name, network, located, folder, final, {})
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


def _check_space(root: Path, jobs: Iterable[_Job]) -> None:
    needed = sum((origin.bytes or 0) for job in jobs for _, origin in job.pieces())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StageFailed(f"{root}: {needed / 1e6:,.0f} MB to fetch, {free / 1e6:,.0f} MB free; nothing was fetched")


def _run(jobs: list[_Job], parallel: int, progress: Progress) -> Iterator[tuple[_Job, Exception | None]]:
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


def _place(job: _Job) -> Exception | None:
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


def _unpack(job: _Job) -> None:
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

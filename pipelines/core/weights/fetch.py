"""Fetch networks into a checkout, several files at once, and record them in `weights.lock`.

A network that is new appears with all its files at once: until then they are in a hidden folder beside its path. Into a
folder that exists already, missing and wrong files are put one by one.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.core.weights.check import file_faults
from pipelines.core.weights.download import matches
from pipelines.core.weights.jobs import Job, Progress, make_job, run_jobs
from pipelines.core.weights.lock import LOCK, Lock, LockedNetwork, read_lock, write_lock
from pipelines.core.weights.manifest import Manifest, Network, read_manifest
from pipelines.core.weights.sources import go_online


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

    `accepted` names the licences that a person accepts. What is there and right is not fetched again, and what ships
    with the project or is made here is left out. Raises UserError, before anything is fetched, for unknown names and
    licences that are not accepted; NotFetched where files of a network cannot be fetched or are not the expected ones,
    after all others were fetched.
    """
    manifest = read_manifest(root)
    named = {name: manifest.network(name) for name in names}
    networks = {name: network for name, network in named.items() if not (network.shipped or network.made_by)}
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
    jobs: list[Job] = []
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
        asked = {name: pool.submit(make_job, root, name, network, folder, lock) for name, network in open_ones.items()}
    for name, answer in asked.items():
        try:
            jobs.append(answer.result())
        except (UserError, StageFailed) as error:
            faults[name] = str(error)
    _check_space(root, jobs)
    for job, fault in run_jobs(jobs, parallel, progress):
        if fault is not None:
            faults[job.name] = str(fault)
            continue
        licence = job.network.licence
        recorded = LockedNetwork(
            source=job.located.source,
            revision=job.located.revision,
            licence=licence,
            accepted=licence is not None and manifest.licences[licence].accept,
            files=dict(sorted(job.done.items())),
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


def _check_space(root: Path, jobs: Iterable[Job]) -> None:
    needed = sum((origin.bytes or 0) for job in jobs for _, origin in job.pieces())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StageFailed(f"{root}: {needed / 1e6:,.0f} MB to fetch, {free / 1e6:,.0f} MB free; nothing was fetched")

"""Which networks a checkout needs, which it has, and whether their files are the expected ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.core.files import sha256
from pipelines.core.weights.lock import Lock, LockedFile
from pipelines.core.weights.manifest import File, Manifest, Network, named_paths, shipped_files

State = Literal["ships", "fetched", "unlocked", "incomplete", "absent"]


@dataclass(frozen=True)
class Needed:
    """The networks that parameters name: keys by network; `unknown`: paths by key that the manifest does not have."""

    keys: dict[str, tuple[str, ...]]
    unknown: dict[str, str]


def needed_by(tree: Mapping[str, Any], manifest: Manifest, root: Path) -> Needed:
    """Return the networks that a parameter tree names."""
    keys: dict[str, tuple[str, ...]] = {}
    unknown: dict[str, str] = {}
    for key, path in named_paths(tree).items():
        name = manifest.at(path, root)
        if name is None:
            unknown[key] = path
        else:
            keys[name] = (*keys.get(name, ()), key)
    return Needed(keys, unknown)


def state_of(root: Path, name: str, network: Network, lock: Lock) -> State:
    """Return whether a network is in the checkout, by the names and sizes of its files.

    `unlocked`: it is there, but no fetch recorded it.
    """
    if network.shipped:
        return "ships"
    locked = lock.networks.get(name)
    path = root / network.path
    if not path.exists():
        return "absent"
    if locked is None:
        expected = [
            file
            for pattern in network.files
            for file in ((list(path.glob(pattern)) if "*" in pattern else []) or [path / pattern])
        ]
        return "unlocked" if all(file.is_file() for file in expected) else "incomplete"
    whole = all(
        (path / file).is_file() and (path / file).stat().st_size == known.bytes for file, known in locked.files.items()
    )
    return "fetched" if whole else "incomplete"


def network_faults(root: Path, name: str, network: Network, lock: Lock) -> list[str]:
    """Return what is missing or changed of a network's files, one sentence each; every file is hashed.

    Compared with the lock file, for networks that ship with their own manifest, and for others with the manifest.
    """
    locked = lock.networks.get(name)
    if locked is not None:
        return file_faults(root / network.path, locked.files)
    if network.shipped:
        from pipelines.core.paths import resolve

        return file_faults(resolve(network.path), shipped_files(network))
    if not network.files and not (root / network.path).exists():
        return [f"{root / network.path}: missing"]
    return file_faults(root / network.path, network.files)


def file_faults(path: Path, files: Mapping[str, LockedFile] | Mapping[str, File]) -> list[str]:
    """Return what is missing or changed of the `files` in `path`, one sentence each; every file is hashed.

    A name may hold `*`: then at least one file must match it. `path` itself is the file of the name `.`.
    """
    faults = []
    for name, known in files.items():
        matching = sorted(path.glob(name)) if "*" in name else [path / name]
        if not any(file.is_file() for file in matching):
            faults.append(f"{path / name}: missing")
        faults += [fault for file in matching if file.is_file() for fault in _faults_of(file, known)]
    return faults


def _faults_of(file: Path, known: LockedFile | File) -> list[str]:
    size = file.stat().st_size
    if known.bytes is not None and size != known.bytes:
        return [f"{file}: {size:,} bytes, expected {known.bytes:,}"]
    if known.sha256 is not None and not (digest := sha256(file)).startswith(known.sha256):
        return [f"{file}: sha256 {digest[:12]}, expected {known.sha256[:12]}"]
    return []

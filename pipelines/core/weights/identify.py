"""Which network of the manifest lies at a path: by the content of its files, wherever they are, else by the path."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.files import sha256
from pipelines.core.paths import resolve
from pipelines.core.weights.lock import Lock, read_lock
from pipelines.core.weights.manifest import SECTIONS, Manifest, Network, named_paths, read_manifest, shipped_files

# Values that a tensor has at least where its equality says something: smaller ones may all be zero or one.
_LARGE_TENSOR = 256
# Bytes that take about a tenth of a second to hash.
_LARGE = 64 * 2**20
_WEIGHTS = frozenset({".bin", ".onnx", ".pt", ".pth", ".safetensors", ".tar"})


@dataclass(frozen=True)
class Identified:
    """A path that a parameter names, and the network there: its name and entry, both None for an unknown one.

    `network.domain` is what it knows: drawn, photograph or any.
    """

    path: str
    name: str | None
    network: Network | None


def identified(
    tree: Mapping[str, Any], root: Path | None = None, sections: tuple[str, ...] = SECTIONS
) -> dict[str, Identified]:
    """Return the networks that the parameter tree names, by key such as `base.pipeline`, sorted.

    Their weights are hashed where files of that size are known, which takes seconds for gigabytes.
    """
    return identified_at(named_paths(tree, sections), root)


def identified_at(paths: Mapping[str, str], root: Path | None = None, *, quick: bool = False) -> dict[str, Identified]:
    """Return, as `identified`, the networks at `paths`, by the same keys, sorted.

    `quick`: large files are recognised by their sizes, without hashing.
    """
    root = root or Path.cwd()
    manifest, lock = read_manifest(root), read_lock(root)
    found = {}
    for key, path in sorted(paths.items()):
        name = identify(path, manifest, lock, root, quick=quick)
        found[key] = Identified(path, name, None if name is None else manifest.networks[name])
    return found


def identify(path: str | Path, manifest: Manifest, lock: Lock, root: Path, *, quick: bool = False) -> str | None:
    """Return the name of the network at `path`; None for one that the manifest does not have.

    Files at the path of a network whose hashes are known, but with another content, are unknown; `quick` as above.
    """
    place = resolve(path)
    known, complete = _known_contents(manifest, lock)
    sizes = {size for size, _ in known}
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    weights = [file for file in files if file.suffix in _WEIGHTS and file.is_file()]
    votes: Counter[str] = Counter()
    for file in weights:
        size = file.stat().st_size
        if size in sizes:
            alike = quick and size > _LARGE
            votes.update(
                {name for key, names in known.items() if key[0] == size for name in names}
                if alike
                else known[size, sha256(file)]
            )
    by_path = manifest.at(path, root)
    if votes:
        most = max(votes.values())
        best = [name for name in manifest.networks if votes[name] == most]
        return by_path if by_path in best else best[0]
    return None if weights and by_path in complete else by_path


def same_weights(first: Path, second: Path) -> bool:
    """Whether two ONNX files hold one network: the same bytes, or tensors of which at least half are the same.

    Names of tensors, other layers around them and the file's metadata do not matter.
    """
    if sha256(first) == sha256(second):
        return True
    ours, theirs = _tensors(first), _tensors(second)
    return 2 * len(ours & theirs) > min(len(ours), len(theirs))


def _tensors(file: Path) -> frozenset[str]:
    """Return the hashes of the large tensors of an ONNX file; none where it cannot be read."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    try:
        weights = onnx.load(str(file)).graph.initializer
        large = [numpy_helper.to_array(one) for one in weights if int(np.prod(one.dims)) >= _LARGE_TENSOR]
    except Exception:  # a damaged file raises nearly anything; whoever runs the network names it
        return frozenset()
    return frozenset(hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest() for one in large)


def _known_contents(manifest: Manifest, lock: Lock) -> tuple[dict[tuple[int, str], set[str]], set[str]]:
    """Return the networks that hold a file of this size and sha256, and those of which every weight file is known."""
    known: dict[tuple[int, str], set[str]] = defaultdict(set)
    complete = set()
    for name, network in manifest.networks.items():
        locked = lock.networks.get(name)
        files = locked.files if locked else shipped_files(network) if network.shipped else network.files
        weights = [
            entry for file, entry in files.items() if Path(network.path if file == "." else file).suffix in _WEIGHTS
        ]
        for entry in weights:
            if entry.bytes is not None and entry.sha256 is not None:
                known[entry.bytes, entry.sha256].add(name)
        if weights and all(entry.bytes is not None and entry.sha256 is not None for entry in weights):
            complete.add(name)
    return known, complete

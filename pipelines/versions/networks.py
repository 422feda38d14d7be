"""Networks that a stage reads and `dvc.yaml` cannot name: those in lists of parameters, and those that may be null.

The stage depends on a file of `fingerprints/` with DVC's hash of each. `dynamicid repro` writes it before DVC compares,
so that another file of such a network runs the stage again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import FINGERPRINTS
from pipelines.core.files import write_atomically
from pipelines.core.params import PARAMS, read_tree
from pipelines.core.weights.manifest import named_paths
from pipelines.versions.lock import present_hashes

_PARAMETER = re.compile(r"\$\{([^}]+)\}")


def record_networks(root: Path, stage: str) -> None:
    """Write `fingerprints/<stage>.json` where `stage` depends on it; a network that is missing has the hash null.

    Networks that `dvc.yaml` lists for the stage, by their paths, by parameters or by a folder, are left out. Raises
    UserError as `read_tree` and `present_hashes` do.
    """
    name, deps = f"{FINGERPRINTS}{stage}.json", _dependencies(root / "dvc.yaml", stage)
    if name not in deps:
        return
    tree = read_tree(root / PARAMS)
    listed = [Path(_PARAMETER.sub(lambda found: str(_value(tree, found[1])), dep)) for dep in deps]
    named = {Path(path) for path in named_paths(tree, (stage,)).values()}
    open_ones = sorted(path.as_posix() for path in named if not {path, *path.parents} & set(listed))
    present = present_hashes(root, open_ones)
    content = json.dumps({path: present.get(path) for path in open_ones}, indent=1) + "\n"
    file = root / name
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        write_atomically(file, content)


def _dependencies(file: Path, stage: str) -> list[str]:
    """Return the dependencies of a stage in `dvc.yaml`; none where the file is missing or damaged, which DVC names."""
    try:
        return list(yaml.safe_load(file.read_text(encoding="utf-8"))["stages"][stage]["deps"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return []


def _value(tree: Mapping[str, Any], key: str) -> Any:
    """Return the value of a parameter by its key such as `base.pipeline`."""
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return node

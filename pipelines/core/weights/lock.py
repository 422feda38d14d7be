"""`weights.lock`: which files of which networks a checkout uses, and what vouches for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.table import KEY, WEIGHTS, check_format
from pipelines.core.params import problems_of, read_mapping
from pipelines.core.sections.section import Section

LOCK = "weights.lock"
# What a file was compared with when it was fetched: the hash of the manifest, that of the source, or nothing.
Trust = Literal["manifest", "source", "first use"]
_HEAD = "# By `dynamicid weights fetch`; commit it. trust: what the sha256 was compared with when it was recorded.\n"


class LockedFile(Section):
    """Size and sha256 (hex) of a file, and what they were compared with."""

    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    trust: Trust


class LockedNetwork(Section):
    """Where a network came from (`a folder`, with --from), its licence and whether a person accepted it, its files."""

    source: str
    revision: str | None = None
    licence: str | None = None
    accepted: bool = False
    files: dict[str, LockedFile]


class Lock(Section):
    """The networks of a checkout, by name."""

    format: int = WEIGHTS.version
    networks: dict[str, LockedNetwork] = Field({})


def read_lock(root: Path) -> Lock:
    """Return the lock file of a checkout, empty where there is none; raise UserError where it is damaged or newer."""
    file = root / LOCK
    if not file.is_file():
        return Lock()
    tree = read_mapping(file)
    check_format(WEIGHTS, file, tree.get(KEY))
    try:
        return Lock.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(problems_of(error, Lock))
        raise UserError(f"{file}: {problems}; restore it with git, or delete it and fetch again") from None


def write_lock(root: Path, lock: Lock) -> None:
    """Write the lock file, whole or not at all; the same networks give the same bytes."""
    tree: dict[str, Any] = lock.model_dump(mode="json", exclude_none=True)
    tree["networks"] = {
        name: {
            **{key: value for key, value in network.items() if value is not False},
            "files": dict(sorted(network["files"].items())),
        }
        for name, network in sorted(tree["networks"].items())
    }
    write_atomically(root / LOCK, _HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))

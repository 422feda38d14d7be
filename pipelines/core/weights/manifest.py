"""The manifest of networks: what each is for, its files, licence and domain, and what may stand in for it.

`manifest.yaml` beside this file is the project's; a file `weights.yaml` in a checkout adds networks and licences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pipelines.core.errors import UserError
from pipelines.core.formats.table import KEY, WEIGHTS, check_format
from pipelines.core.params import problems_of, read_mapping
from pipelines.core.paths import project_root
from pipelines.core.sections.section import Domain, Section
from pipelines.core.words import did_you_mean

OWN = "weights.yaml"
_MANIFEST = Path(__file__).with_name("manifest.yaml")
_SHIPPED = Path("model/foundation/weights/manifest.json")
# Keys of parameters whose texts are no networks, though they have slashes.
_NO_NETWORK = frozenset({"master", "spark", "insightface_root", "shipped_adapter", "start_from"})
SECTIONS = ("base", "preprocess", "evaluate", "export")
# Sections whose networks form the adapter: what they compute is what it is trained on.
SHAPING = ("base", "preprocess")


class Licence(Section):
    """What a licence allows; one with `accept` must be accepted by name before a network is fetched."""

    commercial: bool
    redistribution: bool
    accept: bool = False
    page: str | None = None
    note: str | None = None


class File(Section):
    """Size and sha256 of a file as its source publishes them (of the sha256 perhaps only the first digits)."""

    bytes: int | None = Field(None, ge=0)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{8,64}$")


class Source(Section):
    """Where files come from: a repository of the Hugging Face Hub, an address below which they lie, or one archive."""

    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    files: str | None = Field(None, pattern=r"^https?://")
    archive: str | None = Field(None, pattern=r"^https?://")
    bytes: int | None = Field(None, ge=0)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{8,64}$")

    @model_validator(mode="after")
    def _one(self) -> Source:
        if sum(place is not None for place in (self.hub, self.files, self.archive)) != 1:
            raise ValueError("expected one of hub, files and archive")
        return self

    @property
    def address(self) -> str:
        """Return the address that a person can open."""
        return f"https://huggingface.co/{self.hub}" if self.hub else str(self.files or self.archive)


class MadeFrom(Section):
    """The published files from which those of a network were converted, and the release that holds them.

    `command`: what converts them, `DIR` being a folder that holds them; None: nothing here does.
    """

    release: str
    command: str | None = None
    files: dict[str, File] = Field(min_length=1)


class Network(Section):
    """One network. Names of `files` may hold `*` where the source is a repository of the Hub.

    `made_by`: the command that trains it here; it is not fetched. `hashes`: `measured` where nobody publishes those of
    `files`, which are then of the files with which the project was measured.
    """

    purpose: str
    path: str
    source: Source | None = None
    page: str | None = None
    shipped: bool = False
    made_by: str | None = None
    made_from: MadeFrom | None = None
    hashes: Literal["published", "measured"] = "published"
    licence: str | None = None
    domain: Domain
    mb: float = Field(ge=0)
    files: dict[str, File] = Field({})
    instead: tuple[str, ...] = ()
    note: str | None = None

    @model_validator(mode="after")
    def _inside(self) -> Network:
        for name in (self.path, *self.files):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name}: expected a path inside the checkout, without '..'")
        return self


class Manifest(Section):
    """Networks and licences by name."""

    format: int
    licences: dict[str, Licence] = Field({})
    networks: dict[str, Network]

    def network(self, name: str) -> Network:
        """Return the network `name`; raise UserError, with the names that are alike, where there is none."""
        if name not in self.networks:
            hint = did_you_mean(name, self.networks, 3) or "; `dynamicid weights list` names all"
            raise UserError(f"{name}: no such network in the manifest{hint}")
        return self.networks[name]

    def at(self, path: str | Path, root: Path | None = None) -> str | None:
        """Return the name of the network whose path is `path`, or holds it; None where there is none."""
        wanted = _relative(Path(path), root)
        named = {Path(network.path): name for name, network in self.networks.items()}
        return next((named[place] for place in (wanted, *wanted.parents) if place in named), None)


def read_manifest(root: Path | None = None) -> Manifest:
    """Return the project's manifest with what `weights.yaml` in `root` (default: here) adds or replaces.

    Raises UserError where that file is no such manifest, or a network names a licence that neither defines.
    """
    own = (root or Path.cwd()) / OWN
    if not own.is_file():
        return _project_manifest()
    added = read_mapping(own)
    check_format(WEIGHTS, own, added.get(KEY))
    project = _project_tree()
    tree: dict[str, Any] = {KEY: WEIGHTS.version}
    for part in ("licences", "networks"):
        given = added.pop(part, None) or {}
        if not isinstance(given, dict):
            raise UserError(f"{own}: {part}: expected a mapping of names")
        tree[part] = {**project[part], **given}
    added.pop(KEY, None)
    return _checked({**tree, **added}, str(own))


@lru_cache(maxsize=1)
def _project_manifest() -> Manifest:
    return _checked(_project_tree(), str(_MANIFEST))


def _project_tree() -> dict[str, Any]:
    return dict(yaml.safe_load(_MANIFEST.read_text(encoding="utf-8")))


def _checked(tree: dict[str, Any], origin: str) -> Manifest:
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {'; '.join(problems_of(error, Manifest))}") from None
    for name, network in manifest.networks.items():
        if network.licence is not None and network.licence not in manifest.licences:
            defined = ", ".join(sorted(manifest.licences))
            raise UserError(
                f"{origin}: network {name} has the licence {network.licence!r}, which is not defined; define it under "
                f"`licences` (commercial, redistribution), or use one of {defined}"
            )
        for other in network.instead:
            if other not in manifest.networks:
                raise UserError(f"{origin}: network {name}: instead names {other!r}, which is no network")
    return manifest


def shipped_files(network: Network) -> dict[str, File]:
    """Return the files of a network that ships with the project, by their paths below the network's."""
    file = project_root() / _SHIPPED
    recorded = json.loads(file.read_text(encoding="utf-8"))["files"] if file.is_file() else {}
    below = Path(network.path).relative_to(_SHIPPED.parent)
    return {
        Path(name).relative_to(below).as_posix(): File(bytes=entry["bytes"], sha256=entry["sha256"])
        for name, entry in recorded.items()
        if Path(name).is_relative_to(below)
    }


def named_paths(tree: Mapping[str, Any], sections: tuple[str, ...] = SECTIONS) -> dict[str, str]:
    """Return the paths of networks that a parameter tree names, by key such as `base.pipeline`.

    The face pack is that of `insightface_root` and `insightface_name`. Captions by networks that
    `preprocess.captions.sources` leaves out do not count.
    """
    paths = {key: path for section in sections for key, path in _paths_in(tree.get(section), section)}
    sources = (tree.get("preprocess") or {}).get("captions", {}).get("sources", ())
    for source in ("clip", "internvl"):
        if source not in sources:
            paths.pop(f"preprocess.captions.{source}_path", None)
    return paths


def _paths_in(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        if "insightface_root" in node and "insightface_name" in node:
            yield f"{key}.insightface_name", f"{node['insightface_root']}/models/{node['insightface_name']}"
        for name, value in node.items():
            if name not in _NO_NETWORK:
                yield from _paths_in(value, f"{key}.{name}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _paths_in(value, f"{key}.{number}")
    elif isinstance(node, str) and "/" in node:
        yield key, node


def _relative(path: Path, root: Path | None) -> Path:
    """Return `path` relative to the checkout `root` or the project, where it is inside of it."""
    path = path.expanduser()
    if path.is_absolute():
        for base in (root or Path.cwd(), project_root()):
            if path.is_relative_to(base):
                return path.relative_to(base)
    return path

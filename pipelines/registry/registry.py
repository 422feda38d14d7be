"""Registered versions by URI, the aliases `champion` and `challenger`, and the lock for changing them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold_everywhere
from pipelines.registry.faults import TrackingFault
from pipelines.registry.settings import tracking_root
from pipelines.registry.tracking import Tracking, open_tracking

CHALLENGER = "challenger"
CHAMPION = "champion"
# The tag of a version of a finished adapter (`false`): nothing here says what it was trained on.
TRAINED_HERE = "dynamicid.trained_here"
LOCK_SECONDS = 600.0
# The tag with `MadeFrom`. Earlier releases wrote a tag for each hash and licence, as the runs of stages still have.
MADE_FROM = "dynamicid.made_from"
_APART = {"stages": "dynamicid.lock_hash.", "outputs": "dynamicid.output.", "networks": "dynamicid.licence."}
# What MLflow answers where there is no such model, version or alias.
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))")


@dataclass(frozen=True)
class MadeFrom:
    """Hashes of what a version was made from: one tag, since MLflow's page of a version shows every tag in full.

    `stages`: the sha256 of each stage's entry in `dvc.lock`. `outputs`: DVC's hash of each of their outputs by its
    path. `networks`: the licence of each network that formed the adapter.
    """

    stages: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """Return the tag."""
        return {MADE_FROM: json.dumps(asdict(self), ensure_ascii=False)}


def made_from(tags: Mapping[str, str]) -> MadeFrom:
    """Read the tags of a version or run, also of earlier releases."""
    if MADE_FROM in tags:
        return MadeFrom(**json.loads(tags[MADE_FROM]))
    apart = {
        name: {key.removeprefix(start): value for key, value in tags.items() if key.startswith(start)}
        for name, start in _APART.items()
    }
    return MadeFrom(**apart)


def open_registry(root: Path) -> Tracking:
    """Point MLflow to the tracking database or server of `root` and return its client."""
    return open_tracking(root)


@contextmanager
def registry_lock(root: Path, timeout: float = LOCK_SECONDS, name: str = "register") -> Iterator[None]:
    """Hold a lock, by default that for changing aliases and decisions; raise StageFailed after `timeout` seconds.

    With DYNAMICID_LOCKS it holds on all machines, else for the processes of this one.
    """
    file = tracking_root(root) / ".dynamicid" / f"{name}.lock"
    taken = StageFailed(
        f"{file}: another process has been changing the registry for {timeout:.0f} s; wait for it, then run again"
    )
    with hold_everywhere(file, timeout, taken):
        yield


def find_version(client: Any, uri: str) -> Any:
    """Return the registered version that `uri` names: `models:/dynamicid/3` or `models:/dynamicid@challenger`.

    Raises UserError where the URI has another form or there is no such version.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise UserError(f"{uri}: expected models:/<name>/<version> or models:/<name>@<alias>")
    name, number, alias = match["name"], match["version"], match["alias"]
    try:
        if number is not None:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except TrackingFault as fault:
        if fault.code not in NOT_THERE:
            raise
        known = [version.version for version in versions_of(client, name)]
        there = f"there are {', '.join(f'v{one}' for one in known)}" if known else "`dynamicid register` makes versions"
        raise UserError(f"{uri}: no such version in the registry; {there}") from None


def versions_of(client: Any, name: str) -> list[Any]:
    """Return every version of the model `name`, oldest first; none where there is no such model."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def champion_number(client: Any, name: str) -> str | None:
    """Return the number of the version with the alias `champion`, or None where no version has it."""
    champion = champion_of(client, name)
    return None if champion is None else str(champion.version)


def champion_of(client: Any, name: str) -> Any | None:
    """Return the version with the alias `champion`, or None where no version has it."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except TrackingFault as fault:
        # A server that does not answer must not be taken for a registry without a champion.
        if fault.code in NOT_THERE:
            return None
        # A server with user accounts gives this error for a model that does not exist, too.
        if fault.code == "PERMISSION_DENIED" and not client.search_registered_models(f"name = '{name}'"):
            return None
        raise

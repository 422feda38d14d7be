"""Lineage in both directions: the origins of a registered version, and the versions made from a dataset or commit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import stage_names
from pipelines.core.errors import UserError
from pipelines.registry.decisions import decisions_of
from pipelines.registry.registry import find_version, made_from, open_registry, versions_of
from pipelines.registry.runs import finished_run

_TAGS = (
    *("dataset_version", "dataset_md5", "git_commit", "snapshot"),
    *("evaluation_set", "airflow_run_id", "adapter_hash"),
)


@dataclass(frozen=True)
class StageOrigin:
    """One stage behind a version: the hash of its `dvc.lock` entry and its MLflow run."""

    lock_hash: str
    run_id: str | None


@dataclass(frozen=True)
class Origins:
    """The origins of a registered version; None for unknown ones."""

    model: str
    run_id: str | None
    dataset_version: str | None
    dataset_md5: str | None
    git_commit: str | None
    git_dirty: bool
    snapshot: str | None
    evaluation_set: str | None
    airflow_run_id: str | None
    adapter_hash: str | None
    stages: dict[str, StageOrigin]
    outputs: dict[str, str]
    decisions: list[dict[str, Any]]


def origins_of(root: Path, uri: str) -> Origins:
    """Return the origins of the registered version `uri`; raise UserError where there is no such version."""
    client = open_registry(root)
    version = find_version(client, uri)
    tags = version.tags
    made = made_from(tags)
    stages = {
        name: StageOrigin(key, finished_run(client, stage=name, lock_hash=key))
        for name in stage_names()
        if (key := made.stages.get(name)) is not None
    }
    return Origins(
        model=f"models:/{version.name}/{version.version}",
        run_id=version.run_id,
        git_dirty=tags.get("dynamicid.git_dirty") == "true",
        **{name: tags.get(f"dynamicid.{name}") for name in _TAGS},
        stages=stages,
        outputs=made.outputs,
        decisions=[asdict(one) for one in decisions_of(version)],
    )


def versions_from(root: Path, name: str, thing: str) -> list[str]:
    """Return the URIs of the versions of model `name` that were made from `thing`, oldest first.

    `thing` is a dataset version (`faces-v3`), a git commit (its first digits), the id of an Airflow run, a DVC hash,
    or the hash of an evaluation set. Raises UserError where it has fewer than seven characters.
    """
    if len(thing) < 7:
        raise UserError(f"{thing}: expected models:/…, a version such as faces-v3, a commit, a run id or a hash")
    found = []
    for version in versions_of(open_registry(root), name):
        tags = version.tags
        commit = tags.get("dynamicid.git_commit", "")
        values = {value for key, value in tags.items() if key.startswith("dynamicid.") and "decision" not in key}
        values |= {*made_from(tags).stages.values(), *made_from(tags).outputs.values()}
        if thing in values or commit.startswith(thing.lower()):
            found.append(f"models:/{name}/{version.version}")
    return found

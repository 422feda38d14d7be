"""The plan of a training run: whether to train, on which dataset version, with which seed and initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.registry.registry import champion_number, open_registry, versions_of
from pipelines.versions.dataset_version import fetch_versions, known_versions

Trigger = Literal["hand", "schedule", "data"]
LATEST = "latest"
SCRATCH = "scratch"


@dataclass(frozen=True)
class Plan:
    """Whether to train, and why; None means procedural people, the seeds and the start of params.yaml.

    `start_from`: a registered version by its number, or `scratch` for new weights whatever params.yaml says.
    """

    train: bool
    reason: str
    dataset_version: str | None = None
    seed: int | None = None
    start_from: str | None = None


def newest(tags: Sequence[str]) -> str | None:
    """Return the dataset version with the highest number, or None without any."""
    return max(tags, key=lambda tag: int(tag.rpartition("-v")[2]), default=None)


def make_plan(
    root: Path, params: Params, trigger: Trigger, versions: Sequence[str], start_from: str | None = None
) -> Plan:
    """Return the plan of a run; raise UserError where a dataset version is unknown.

    `versions` depends on the trigger. `hand`: the chosen one (`latest` or empty: the newest; where there is none, empty
    means procedural people). `data`: those of the events; the newest is used. `schedule`: empty; the newest of all is
    used, and if a registered version was trained on it already, `retrain.without_new_data` decides. `start_from` is a
    value of `retrain.start_from`, which is its default.
    """
    fetch_versions(root)
    known = known_versions(root)
    for version in versions:
        if version != LATEST and version not in known:
            raise UserError(f"dataset version {version}: there is none; there are {', '.join(known) or 'none yet'}")
    chosen = newest(versions) if versions and LATEST not in versions else newest(known)
    if LATEST in versions and chosen is None:
        raise UserError("the latest dataset version: there is none yet; `dynamicid ingest` makes one")
    if chosen is None and trigger != "hand":
        return Plan(False, "there is no dataset version yet")
    reason = f"{chosen} by {trigger}" if chosen else "procedural people"
    seed = None
    if trigger == "schedule":
        used = _trained_on(root, params, chosen)
        if used and params.retrain.without_new_data == "skip":
            return Plan(
                False, f"no new data: {chosen} was trained on for {', '.join(f'v{one}' for one in used)}", chosen
            )
        if used:
            seed = params.train_anchoring.seed + len(used)
            reason = f"no newer data than {chosen}: trained again with seed {seed}"
    start, note = _start(root, params, start_from or params.retrain.start_from)
    return Plan(True, f"{reason}; {note}", chosen, seed, start)


def _trained_on(root: Path, params: Params, dataset: str | None) -> list[str]:
    versions = versions_of(open_registry(root), params.register_.model_name)
    return [str(version.version) for version in versions if version.tags.get("dynamicid.dataset_version") == dataset]


def _start(root: Path, params: Params, start_from: str) -> tuple[str | None, str]:
    if start_from == SCRATCH:
        return SCRATCH, "from scratch"
    named = f"from {params.train_anchoring.start_from or 'scratch'}"
    if start_from == "parameters":
        return None, named
    name = params.register_.model_name
    champion = champion_number(open_registry(root), name)
    if champion is None:
        return None, f"{named}, there being no champion"
    # The number, not the alias: the run's initial weights must not change with the champion.
    return f"models:/{name}/{champion}", f"from the champion v{champion}"

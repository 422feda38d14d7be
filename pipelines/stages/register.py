"""register: the adapter becomes a version of the registered model, and champion if it passes the gates.

Not a DVC stage: it has effects outside the workspace. It is idempotent instead, keyed by adapter hash × evaluation-set
hash: registering the same adapter, judged on the same evaluation set, again finds its version and its decision. It is
compared again only where the champion has changed since and no person has decided.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import ADAPTER, METRICS, REPORT
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.registry.decisions import GATES, Decision, last_decision
from pipelines.registry.gates import judge
from pipelines.registry.promotion import ChampionMoved, decide, finish_interrupted
from pipelines.registry.registry import CHALLENGER, champion_of, open_registry, registry_lock, versions_of
from pipelines.versions.push import push_data

# How often a comparison is begun again because another run promoted its own challenger meanwhile.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Inputs:
    """The adapter, how it was judged, and the checkout that holds them."""

    root: Path
    adapter: Path = Path(ADAPTER)
    metrics: Path = Path(METRICS)
    report: Path = Path(REPORT)
    processed: Path = Path("data/processed")


@dataclass(frozen=True)
class Registration:
    """What became of the adapter in the registry."""

    model_name: str
    version: str
    created: bool
    decision: str  # promoted, refused or not_asked; rolled_back or restored where a person went back
    failed_gates: tuple[str, ...]
    champion: str | None
    compared_with: str | None
    by: str

    def as_json(self) -> str:
        """Return the registration as one JSON object."""
        return json.dumps(asdict(self))


def run(params: Params, inputs: Inputs) -> Registration:
    """Register the adapter as `challenger`, and promote it to `champion` where the gates let it.

    The first version needs to pass the absolute bounds only. With `register.promote` off the gates are judged and
    written down, the decision is left to `dynamicid promote`, and the champion stays. Raises UserError where adapter
    or metrics are missing.
    """
    for path in (inputs.adapter / "config.json", inputs.metrics):
        if not (inputs.root / path).is_file():
            raise UserError(f"{path}: missing; run `dynamicid repro` first")
    metrics = json.loads((inputs.root / inputs.metrics).read_text(encoding="utf-8"))
    # First the copy: a version whose data is on one disk only should not be on offer to anybody.
    push_data(inputs.root)
    client = open_registry(inputs.root)
    with registry_lock(inputs.root):
        version, created = _version(client, params, inputs, metrics)
        finish_interrupted(client, version)
    for _ in range(_ATTEMPTS):
        version = client.get_model_version(version.name, version.version)
        if (last := _standing(client, version, params.register_.promote)) is not None:
            return _registration(client, version, created, last)
        decision = _compare(client, version, params, inputs, metrics)
        # The comparison may draw pictures for minutes, so it is made without the lock; `decide` looks whether the
        # champion is still the one it was made with.
        with registry_lock(inputs.root), contextlib.suppress(ChampionMoved):
            decide(client, version, decision)
    raise StageFailed(
        f"{version.name} v{version.version}: the champion changed during each of {_ATTEMPTS} comparisons; run again"
    )


def _version(client: Any, params: Params, inputs: Inputs, metrics: dict[str, Any]) -> tuple[Any, bool]:
    """Return the version of this adapter and evaluation set, and whether it was made now."""
    from mlflow.exceptions import MlflowException

    from pipelines.registry.log_model import adapter_hash, log_version
    from pipelines.registry.recorder import record_stage

    name = params.register_.model_name
    key = {
        "dynamicid.adapter_hash": adapter_hash(inputs.root / inputs.adapter),
        "dynamicid.evaluation_set": metrics["evaluation_set"],
    }
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name, description="DynamicID adapters; the base model is named by reference.")
    for found in versions_of(client, name):
        if all(found.tags.get(tag) == value for tag, value in key.items()):
            return found, False
    run_id = record_stage(inputs.root, "evaluate", params)
    version = log_version(client, params, inputs, metrics, {**key, "dynamicid.evaluate_run": run_id})
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version, True


def _standing(client: Any, version: Any, promote: bool) -> Decision | None:
    """Return the decision that stands, or None where the version has to be compared."""
    last = last_decision(version)
    if last is None or (last.decision == "not_asked" and promote):
        return None
    if last.by != GATES or last.decision == "promoted":
        return last
    champion = champion_of(client, version.name)
    return last if last.champion == (None if champion is None else str(champion.version)) else None


def _compare(client: Any, version: Any, params: Params, inputs: Inputs, metrics: dict[str, Any]) -> Decision:
    """Return what the gates say about the challenger against the present champion."""
    from pipelines.registry.champion import champion_metrics

    present = champion_of(client, version.name)
    champion, unknown = None, []
    if present is not None and str(present.version) != str(version.version):
        try:
            champion = champion_metrics(present, params, inputs.root / inputs.processed, metrics, inputs.root)
        except UserError as error:
            # Its base may be gone, for good: the challenger is refused, and a person may override that.
            unknown = [f"champion v{present.version} cannot be judged on this evaluation set: {error}"]
    judged = judge(params.register_.gates, metrics, champion)
    failures = (*(one.line() for one in judged if not one.passed), *unknown)
    kind = "not_asked" if not params.register_.promote else "refused" if failures else "promoted"
    return Decision(
        decision=kind,  # type: ignore[arg-type]
        by=GATES,
        champion=None if present is None else str(present.version),
        reasons=failures,
        evidence={
            "evaluation_set": metrics["evaluation_set"],
            "evaluate_run": version.tags.get("dynamicid.evaluate_run"),
            "failed_gates": list(failures),
            "gates": [one.plain() for one in judged],
        },
    )


def _registration(client: Any, version: Any, created: bool, last: Decision) -> Registration:
    champion = champion_of(client, version.name)
    return Registration(
        model_name=version.name,
        version=str(version.version),
        created=created,
        decision=last.decision,
        failed_gates=tuple(last.evidence.get("failed_gates", ())),
        champion=None if champion is None else str(champion.version),
        compared_with=last.champion,
        by=last.by,
    )

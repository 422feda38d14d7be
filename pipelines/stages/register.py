"""register: the adapter becomes a version of the registered model, and champion if it passes the gates.

Not a DVC stage: it has effects outside the workspace. It is idempotent instead, keyed by adapter hash × evaluation-set
hash: registering the same adapter, judged on the same evaluation set, again finds its version and its decision.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.chain import ADAPTER, METRICS, REPORT
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.tracking.gates import Champion, failed_gates

SECTIONS = ("base", "preprocess", "evaluate", "register")
CHALLENGER = "challenger"
CHAMPION = "champion"


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
    decision: str  # promoted, refused or not_asked
    failed_gates: tuple[str, ...]
    champion: str | None

    def as_json(self) -> str:
        """Return the registration as one JSON object."""
        return json.dumps(asdict(self))


def _metrics_of(client: Any, version: Any) -> dict[str, Any]:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=version.tags["dynamicid.evaluate_run"], artifact_path="metrics.json", dst_path=folder
        )
        return json.loads(Path(path).read_text(encoding="utf-8"))


def _champion(client: Any, params: Params, inputs: Inputs, evaluation_set: str) -> Champion | None:
    """Return the present champion with its metrics on this evaluation set; it is evaluated again where they differ."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(params.register_.model_name, CHAMPION)
    except MlflowException:
        return None
    metrics = _metrics_of(client, version)
    if metrics["evaluation_set"] != evaluation_set:
        metrics = _evaluate_again(params, inputs, version)
    return Champion(version=version.version, metrics=metrics)


def _evaluate_again(params: Params, inputs: Inputs, version: Any) -> dict[str, Any]:
    from pipelines.stages import evaluate
    from pipelines.tracking.model_uri import adapter_folder

    with tempfile.TemporaryDirectory() as folder:
        outputs = evaluate.Outputs(metrics=Path(folder) / "metrics.json", report=Path(folder) / "index.html")
        adapter = adapter_folder(f"models:/{version.name}/{version.version}", inputs.root)
        evaluate.run(params, evaluate.Inputs(processed=inputs.root / inputs.processed, adapter=adapter), outputs)
        return json.loads(outputs.metrics.read_text(encoding="utf-8"))


def run(params: Params, inputs: Inputs) -> Registration:
    """Register the adapter as `challenger`, and promote it to `champion` where the gates let it.

    The first version needs to pass the absolute bounds only. With `register.promote` off nothing is compared and the
    champion stays. Raises UserError where adapter or metrics are missing.
    """
    from filelock import FileLock
    from mlflow.tracking import MlflowClient

    from pipelines.tracking.settings import connect, ledger_root

    for path in (inputs.adapter / "config.json", inputs.metrics):
        if not (inputs.root / path).is_file():
            raise UserError(f"{path}: missing; run `dynamicid repro` first")
    connect(inputs.root)
    lock = ledger_root(inputs.root) / ".dynamicid" / "register.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that end together must not both take the same champion for the one they were compared with.
    with FileLock(lock):
        return _register(MlflowClient(), params, inputs)


def _register(client: Any, params: Params, inputs: Inputs) -> Registration:
    from mlflow.exceptions import MlflowException

    from pipelines.tracking.log_model import adapter_hash, log_version
    from pipelines.tracking.recorder import record_stage

    name = params.register_.model_name
    metrics = json.loads((inputs.root / inputs.metrics).read_text(encoding="utf-8"))
    evaluation_set = metrics["evaluation_set"]
    key = {
        "dynamicid.adapter_hash": adapter_hash(inputs.root / inputs.adapter),
        "dynamicid.evaluation_set": evaluation_set,
    }
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name, description="DynamicID adapters; the base model is named by reference.")
    version = next(
        (
            found
            for found in client.search_model_versions(f"name = '{name}'", max_results=1000)
            if all(found.tags.get(tag) == value for tag, value in key.items())
        ),
        None,
    )
    created = version is None
    if version is None:
        run_id = record_stage(inputs.root, "evaluate", params)
        version = log_version(client, params, inputs, metrics, {**key, "dynamicid.evaluate_run": run_id})
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    decided = version.tags.get("dynamicid.decision")
    if decided in ("promoted", "refused") or (decided == "not_asked" and not params.register_.promote):
        failures = json.loads(version.tags.get("dynamicid.failed_gates", "[]"))
        return Registration(name, version.version, created, decided, tuple(failures), _alias(client, name))

    failures, decision = [], "not_asked"
    if params.register_.promote:
        failures = failed_gates(params.register_.gates, metrics, _champion(client, params, inputs, evaluation_set))
        decision = "refused" if failures else "promoted"
    client.set_model_version_tag(name, version.version, "dynamicid.decision", decision)
    client.set_model_version_tag(name, version.version, "dynamicid.failed_gates", json.dumps(failures))
    if decision == "promoted":
        client.set_registered_model_alias(name, CHAMPION, version.version)
    return Registration(name, version.version, created, decision, tuple(failures), _alias(client, name))


def _alias(client: Any, name: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException:
        return None

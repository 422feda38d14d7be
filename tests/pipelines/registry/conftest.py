"""Registries for tests: compared versions without a model, and two real ones from a small chain."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import commit_all, dvc, git, run

VARIABLES = ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_AIRFLOW_RUN_ID")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep MLflow settings of the environment away from these tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def compared(mlflow_checkout: Path) -> Callable[..., Any]:
    """Return a maker of a compared version: (champion, lines of failed gates) → version."""
    from pipelines.registry.decisions import Decision, add_decision
    from pipelines.registry.faults import TrackingFault
    from pipelines.registry.registry import open_registry

    client = open_registry(mlflow_checkout)

    def make(champion: str | None, *failed: str) -> Any:
        with contextlib.suppress(TrackingFault):
            client.create_registered_model("dynamicid")
        version = client.create_model_version("dynamicid", (mlflow_checkout / "README").as_uri())
        evidence = {"evaluation_set": "e", "failed_gates": list(failed), "gates": []}
        add_decision(client, version, Decision("not_asked", "gates", champion, tuple(failed), evidence))
        return client.get_model_version("dynamicid", version.version)

    return make


_STEP = """
import json, os, pathlib, sys

name, outs = sys.argv[1], sys.argv[2:]
quality = float(pathlib.Path("data/faces/quality.txt").read_text())
for out in map(pathlib.Path, outs):
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.name == "metrics.json" and name == "evaluate":
        quality = float(os.environ.get("FIGURE", quality))
        value = {"value": quality, "low": quality - 0.05, "high": quality + 0.05}
        document = {"evaluation_set": "e" * 64, "model": {"id_similarity": value}, "settings": {"sampler": "ddim"}}
        out.write_text(json.dumps(document))
    elif out.suffix:
        out.write_text(json.dumps({"quality": quality}))
    else:
        out.mkdir()
        network = {"parameter": "base.pipeline", "network": "small", "licence": "MIT"}
        network |= {"commercial": True, "redistribution": True}
        made_by = {"stage": name, "networks": [network], "before": None}
        (out / "config.json").write_text(json.dumps({"stage": name, "quality": quality, "made_by": made_by}))
"""
GATES = [{"metric": "id_similarity", "minimum": 0.3, "max_regression": 0.02}]


def small_chain(folder: Path, project: Path) -> None:
    """Write a repository with stages of the chain's names that only write small files."""
    import yaml

    from pipelines.core.chain import stages

    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    stages = {
        stage.name: {
            "cmd": f"python step.py {stage.name} {' '.join(stage.outputs)}",
            "deps": ["step.py", *stage.inputs],
            "params": list(stage.sections),
            "outs": list(stage.outputs),
        }
        for stage in stages()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "step.py").write_text(_STEP)
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    tree["register"]["gates"] = GATES
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    ignored = (".dynamicid/", "data/faces", "data/processed", "data/.gitignore", "models/", "reports/", "mlflow.db*")
    (folder / ".gitignore").write_text("".join(f"/{name}\n" for name in (*ignored, "mlartifacts/")))
    commit_all(folder, "start")


def make_result(folder: Path, quality: float) -> None:
    """Make a dataset version and bring the chain up to date with it."""
    from pipelines.versions.dataset_version import make_version
    from pipelines.versions.dvc import stage_environment

    (folder / "data" / "faces").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "faces" / "quality.txt").write_text(str(quality))
    make_version(folder, "data/faces", f"quality {quality}")
    run(sys.executable, "-m", "dvc", "repro", "-q", cwd=folder, env={"PATH": stage_environment()["PATH"]})


@dataclass(frozen=True)
class Registered:
    """A repository with two registered versions, and the result of registering each."""

    root: Path
    first: dict[str, Any]
    second: dict[str, Any]


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, project: Path, empty_database: Path) -> Registered:
    """Two versions from two dataset versions: v1 is promoted by the gates, v2 is worse and refused.

    In a separate MLflow database; v1 has the run id of a scheduler.
    """
    from pipelines.core.params import load_params
    from pipelines.registry.lineage import AIRFLOW_RUN_VARIABLE
    from pipelines.stages import register

    root = tmp_path_factory.mktemp("registered") / "checkout"
    small_chain(root, project)
    shutil.copy2(empty_database, root / "mlflow.db")
    results = []
    for quality, airflow_run in ((0.5, "dynamicid_train/manual__1"), (0.4, "")):
        make_result(root, quality)
        with pytest.MonkeyPatch.context() as patch:
            for name in VARIABLES:
                patch.delenv(name, raising=False)
            patch.setenv(AIRFLOW_RUN_VARIABLE, airflow_run)
            results.append(asdict(register.run(load_params(root / "params.yaml"), register.Inputs(root))))
    return Registered(root, *results)

"""The lineage of a stage's result: git commit, dataset version, `dvc.lock` entry, evaluation set, Airflow run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import METRICS
from pipelines.core.errors import UserError
from pipelines.versions.dataset_version import current_version
from pipelines.versions.git import git, has_commit, run_git

AIRFLOW_RUN_VARIABLE = "DYNAMICID_AIRFLOW_RUN_ID"


@dataclass(frozen=True)
class Lineage:
    """The origin of one stage's present result; a field is None where there is no such thing."""

    stage: str
    git_commit: str | None
    git_dirty: bool
    dataset_version: str | None
    dataset_md5: str | None
    lock_hash: str
    outputs: dict[str, str]
    evaluation_set: str | None
    airflow_run_id: str | None

    def tags(self) -> dict[str, str]:
        """Return the known parts of the lineage as MLflow tags."""
        values: dict[str, Any] = {f"dynamicid.{key}": value for key, value in asdict(self).items() if key != "outputs"}
        values["dynamicid.git_dirty"] = str(self.git_dirty).lower()
        values |= {f"dynamicid.output.{path}": digest for path, digest in self.outputs.items()}
        return {key: str(value) for key, value in values.items() if value is not None}


def lock_entry(root: Path, stage: str) -> dict[str, Any]:
    """Return the stage's entry of `dvc.lock`; raise UserError where the stage has not been run."""
    file = root / "dvc.lock"
    stages = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"] if file.is_file() else {}
    if stage not in stages:
        raise UserError(f"{file.name}: no entry for stage {stage}; run `dynamicid repro {stage}` first")
    return stages[stage]


def lineage_of(root: Path, stage: str) -> Lineage:
    """Collect the lineage of `stage` in the checkout `root` from git, DVC's lock file and the reports."""
    entry = lock_entry(root, stage)
    version = current_version(root)
    evaluation_set = None
    if stage == "evaluate" and (metrics := root / METRICS).is_file():
        evaluation_set = json.loads(metrics.read_text(encoding="utf-8")).get("evaluation_set")
    return Lineage(
        stage=stage,
        git_commit=git(root, "rev-parse", "HEAD") if has_commit(root) else None,
        git_dirty=bool(run_git(root, "status", "--porcelain", "--untracked-files=no").text),
        dataset_version=version.tag,
        dataset_md5=version.md5,
        lock_hash=hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest(),
        outputs={out["path"]: out["md5"] for out in entry.get("outs", [])},
        evaluation_set=evaluation_set,
        airflow_run_id=os.environ.get(AIRFLOW_RUN_VARIABLE) or None,
    )

"""The lineage of a stage's result: git commit, dataset version, `dvc.lock` entry, evaluation set, Airflow run."""

from __future__ import annotations

import getpass
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import METRICS
from pipelines.evaluation.belonging import read_document
from pipelines.registry.results import StageResult, result_of
from pipelines.versions.dataset_version import tag_of
from pipelines.versions.git import git, has_commit, run_git

AIRFLOW_RUN_VARIABLE = "DYNAMICID_AIRFLOW_RUN_ID"
_REMOTE = re.compile(r"(https?|ssh|git)://|[\w.-]+@[\w.-]+:")
_CREDENTIALS = re.compile(r"^(https?://)[^/@]*@")


@dataclass(frozen=True)
class Lineage:
    """The origin of one stage's present result; a field is None where there is no such thing, or it is unknown.

    `git_commit` is unknown where the code of the stage has changed since (`changed_code`, with commas), or the stage
    was called `by_hand`.
    """

    stage: str
    git_commit: str | None
    git_dirty: bool
    changed_code: str | None
    by_hand: bool
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
        values["dynamicid.by_hand"] = "true" if self.by_hand else None
        values["mlflow.source.git.commit"] = self.git_commit
        values |= {f"dynamicid.output.{path}": digest for path, digest in self.outputs.items()}
        return {key: str(value) for key, value in values.items() if value is not None}


def lineage_of(root: Path, stage: str, result: StageResult | None = None) -> Lineage:
    """Collect the lineage of `stage` in the checkout `root` from git, DVC's lock file and the reports.

    `result` is that of the stage, where it is known already. Raises as `result_of` where there is no result, or files
    do not belong together.
    """
    result = result or result_of(root, stage)
    evaluation_set = None
    if stage == "evaluate" and (metrics := root / METRICS).is_file():
        evaluation_set = read_document(metrics).get("evaluation_set")
    known_code = not (result.changed_code or result.by_hand)
    return Lineage(
        stage=stage,
        git_commit=git(root, "rev-parse", "HEAD") if has_commit(root) and known_code else None,
        git_dirty=bool(run_git(root, "status", "--porcelain", "--untracked-files=no").text),
        changed_code=", ".join(result.changed_code) or None,
        by_hand=result.by_hand,
        dataset_version=None if result.dataset_md5 is None else tag_of(root, result.dataset_md5),
        dataset_md5=result.dataset_md5,
        lock_hash=result.key,
        outputs=result.outputs,
        evaluation_set=evaluation_set,
        airflow_run_id=os.environ.get(AIRFLOW_RUN_VARIABLE) or None,
    )


def source_tags(root: Path, command: str, *, now: bool = True) -> dict[str, str]:
    """Return MLflow's own tags of a run: the command, who runs it, the repository and, if it runs `now`, the commit."""
    tags = {
        "mlflow.source.name": f"dynamicid {command}",
        "mlflow.source.type": "JOB" if os.environ.get(AIRFLOW_RUN_VARIABLE) else "LOCAL",
    }
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        tags["mlflow.user"] = getpass.getuser()
    if has_commit(root):
        origin = run_git(root, "remote", "get-url", "origin").text
        asked = {
            "mlflow.source.git.branch": run_git(root, "branch", "--show-current").text,
            # No folder of this machine, and no password.
            "mlflow.source.git.repoURL": _CREDENTIALS.sub(r"\1", origin) if _REMOTE.match(origin) else "",
            "mlflow.source.git.commit": git(root, "rev-parse", "HEAD") if now else "",
        }
        tags |= {name: value for name, value in asked.items() if value}
    return tags

"""The stages of `dvc.yaml`: their parameter sections, inputs, outputs and code.

A stage has the same name in `dvc.yaml`, the Airflow DAG, the command line (with dashes) and the MLflow runs. DVC runs
`validate` to `evaluate`; `ingest` comes before them, `register` after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.paths import project_root

FACES = "data/faces"
PROCESSED = "data/processed"
ANCHORING = "models/anchoring"
ADAPTER = "models/adapter"
METRICS = "reports/metrics.json"
HEADLINE = "reports/headline.json"
REPORT = "reports/index.html"
LOSSES_ANCHORING = "reports/train_anchoring/losses.csv"
LOSSES_IMR = "reports/train_imr/losses.csv"
EXPECTATIONS = "expectations"
VERDICT = "reports/validate/verdict.json"
VERDICT_PROCESSED = "reports/validate_processed/verdict.json"
# Hashes of the networks that `dvc.yaml` cannot name.
FINGERPRINTS = "fingerprints/"
# Networks, what is known of them, a team's own expectations: dependencies in `dvc.yaml`, but neither inputs nor code
# of a `Stage`.
_BESIDE = ("${", "model/foundation/weights/", FINGERPRINTS, "calibrations.yaml", EXPECTATIONS)


@dataclass(frozen=True)
class Stage:
    """One DVC stage: parameter sections, relative paths of the data it reads and writes and of its code; what it does.

    `code` lists files and folders of `pipelines` and `model`; the stage runs again when they change. Networks and
    their thresholds are in neither `inputs` nor `code`.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    code: tuple[str, ...]
    description: str

    @property
    def command(self) -> str:
        """The subcommand of `dynamicid` that runs this stage."""
        return self.name.replace("_", "-")


def stages() -> tuple[Stage, ...]:
    """Return the stages in the order of the project's `dvc.yaml`; raise UserError where there is no such file."""
    return _read(project_root() / "dvc.yaml")


def known_stages() -> tuple[Stage, ...]:
    """Return the stages as `stages`; none outside of a checkout of the project."""
    return stages() if (project_root() / "dvc.yaml").is_file() else ()


def stage_names() -> tuple[str, ...]:
    """Return the names of the DVC stages, in the order of the chain."""
    return tuple(stage.name for stage in stages())


@cache
def _read(file: Path) -> tuple[Stage, ...]:
    import yaml

    if not file.is_file():
        raise UserError(f"{file}: no such file; the stages of the chain run in a checkout of the project")
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    return tuple(_stage(name, entry) for name, entry in entries.items())


def _stage(name: str, entry: dict[str, Any]) -> Stage:
    needs = [path for path in _paths(entry["deps"]) if not path.startswith(_BESIDE)]
    code = tuple(path for path in needs if path.startswith(("pipelines/", "model/")))
    return Stage(
        name=name,
        sections=tuple(entry["params"]),
        inputs=tuple(path for path in needs if path not in code),
        outputs=tuple(path for kind in ("outs", "metrics", "plots") for path in _paths(entry.get(kind, ()))),
        code=code,
        description=entry.get("desc", ""),
    )


def _paths(entries: Any) -> list[str]:
    """Return the paths in a list of `dvc.yaml`; an entry is a path, or a mapping from a path to its options."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]

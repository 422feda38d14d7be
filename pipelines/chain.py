"""The chain as a table: which sections, inputs and outputs each stage has.

`dvc.yaml`, the Airflow DAG and the command line agree with this table; tests assert it.
Between the bars are the DVC stages: ingest │ validate → … → evaluate │ register.
"""

from __future__ import annotations

from dataclasses import dataclass

FACES = "data/faces"
PROCESSED = "data/processed"
ANCHORING = "models/anchoring"
ADAPTER = "models/adapter"
METRICS = "reports/metrics.json"
REPORT = "reports/index.html"
LOSSES_ANCHORING = "reports/train_anchoring/losses.csv"
LOSSES_IMR = "reports/train_imr/losses.csv"
VERDICT = "reports/validate/verdict.json"
VERDICT_PROCESSED = "reports/validate_processed/verdict.json"
WEIGHTS = "model/foundation/weights"


@dataclass(frozen=True)
class Stage:
    """One DVC stage: its name everywhere, the parameter sections it reads, what it depends on and what it makes."""

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def command(self) -> str:
        """The subcommand of `dynamicid` that runs this stage."""
        return self.name.replace("_", "-")


STAGES: tuple[Stage, ...] = (
    Stage("validate", ("validate",), (FACES,), (VERDICT,)),
    Stage("preprocess", ("preprocess",), (FACES, VERDICT), (PROCESSED,)),
    Stage("validate_processed", ("validate_processed",), (PROCESSED,), (VERDICT_PROCESSED,)),
    Stage(
        "train_anchoring",
        ("base", "rights", "train_anchoring"),
        (PROCESSED, VERDICT_PROCESSED),
        (ANCHORING, "reports/train_anchoring/metrics.json", LOSSES_ANCHORING),
    ),
    Stage(
        "train_imr",
        ("base", "rights", "train_imr"),
        (PROCESSED, ANCHORING),
        (ADAPTER, "reports/train_imr/metrics.json", LOSSES_IMR),
    ),
    Stage(
        "evaluate",
        ("base", "preprocess", "evaluate"),
        (PROCESSED, ADAPTER, LOSSES_ANCHORING, LOSSES_IMR),
        (METRICS, REPORT),
    ),
)
STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)
# Around the DVC stages: a new dataset version before them, a registry entry after them.
TASKS: tuple[str, ...] = ("ingest", *STAGE_NAMES, "register")


def stage(name: str) -> Stage:
    """Return the stage called `name`; raise KeyError where there is none."""
    return next(found for found in STAGES if found.name == name)

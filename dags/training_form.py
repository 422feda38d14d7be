"""The form of dynamicid_train, and the documents in which it reaches the command line."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param
from stage_task import PROJECT

PROFILES = sorted(path.stem for path in (PROJECT / "profiles").glob("*.yaml"))
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "data"}

FORM = {
    "profile": Param(
        None,
        type=["null", "string"],
        enum=[None, *PROFILES],
        description="Parameters to start from: params.yaml if empty.",
    ),
    "dataset_version": Param(
        None,
        type=["null", "string"],
        pattern=r"^(latest|faces-v[0-9]+)$",
        description="A dataset version, such as faces-v3, or latest; empty: procedural people.",
    ),
    "identities": Param(
        100, type="integer", minimum=4, maximum=100_000, description="Procedural people, where no version is given."
    ),
    "start_from": Param(
        None,
        type=["null", "string"],
        enum=[None, "scratch", "champion"],
        description="Where training begins: as params.yaml says if empty.",
    ),
    "anchoring_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "imr_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "overrides": Param([], type="array", items={"type": "string"}, description="section.key=value, one each."),
    "accept_drift": Param(False, type="boolean", description="Train though the data looks unlike the champion's."),
    "promote": Param(True, type="boolean", description="Let the gates decide on promotion; off: register only."),
    "human_decision": Param(
        False, type="boolean", description="A person decides, with the verdict of the gates at hand."
    ),
}
# What the command line is told of a run, as JSON (pipelines/registry/training_run.py).
FILLED = "{{ {'form': params} | tojson }}"
ASKED = (
    "{{ {'form': params, 'trigger': trigger_of(dag_run), 'versions': versions_of(triggering_asset_events)} | tojson }}"
)
PLANNED = "{{ {'form': params, 'plan': ti.xcom_pull(task_ids='plan')} | tojson }}"


def trigger_of(run: Any) -> str:
    """Return what began the run: hand, schedule or data."""
    return _TRIGGERS.get(str(getattr(run.run_type, "value", run.run_type)), "hand")


def versions_of(events: Any) -> list[str]:
    """Return the dataset versions that the Asset's events name."""
    named = [event.extra.get("dataset_version") for found in events.values() for event in found]
    return sorted({name for name in named if name})

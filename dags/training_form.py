"""The form of dynamicid_train, and the JSON documents that pass it to the command line."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param
from stage_task import PROJECT

PROFILES = sorted(path.stem for path in (PROJECT / "profiles").glob("*.yaml"))
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "data"}

FORM = {
    "profile": Param(
        None, type=["null", "string"], enum=[None, *PROFILES], description="Profile to start from; empty: params.yaml."
    ),
    "dataset_version": Param(
        None,
        type=["null", "string"],
        pattern=r"^(latest|faces-v[0-9]+)$",
        description="Dataset version, such as faces-v3, or latest; empty: procedural people.",
    ),
    "identities": Param(
        100, type="integer", minimum=4, maximum=100_000, description="Procedural people to draw without a version."
    ),
    "start_from": Param(
        None,
        type=["null", "string"],
        enum=[None, "parameters", "scratch", "champion"],
        description="What training starts from; empty: retrain.start_from.",
    ),
    "anchoring_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "imr_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "overrides": Param([], type="array", items={"type": "string"}, description="Changes, each section.key=value."),
    "accept_drift": Param(False, type="boolean", description="Train although the data has drifted."),
    "promote": Param(True, type="boolean", description="Promote if the gates pass; off: register only."),
    "human_decision": Param(
        False, type="boolean", description="Ask a person to decide, showing the result of the gates."
    ),
}
# The JSON of a run for the command line (pipelines/registry/training_run.py).
FILLED = "{{ {'form': params} | tojson }}"
ASKED = (
    "{{ {'form': params, 'trigger': trigger_of(dag_run), 'versions': versions_of(triggering_asset_events)} | tojson }}"
)
PLANNED = "{{ {'form': params, 'plan': ti.xcom_pull(task_ids='plan')} | tojson }}"


def trigger_of(run: Any) -> str:
    """Return what started the run: hand, schedule or data."""
    return _TRIGGERS.get(str(getattr(run.run_type, "value", run.run_type)), "hand")


def versions_of(events: Any) -> list[str]:
    """Return the dataset versions that the Asset's events name."""
    named = [event.extra.get("dataset_version") for each in events.values() for event in each]
    return sorted({name for name in named if name})

"""The form of dynamicid_train, and the JSON documents that pass it to the command line."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param
from stage_task import PROJECT
from task_docs import REFERENCE

PROFILES = sorted(path.stem for path in (PROJECT / "profiles").glob("*.yaml"))
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "data"}

# What the form's lists show in place of "null".
_EMPTY = {"profile": "that of params.yaml", "start_from": "what retrain.start_from says"}
_FIELDS = {**REFERENCE["form"], "profile": {**REFERENCE["form"]["profile"], "enum": [None, *PROFILES]}}
FORM = {
    name: Param(
        **field,
        description_md=field["description"],
        **({"values_display": {"null": _EMPTY[name]}} if name in _EMPTY else {}),
    )
    for name, field in _FIELDS.items()
}
# The JSON of a run for the command line (pipelines/registry/training_run.py).
FILLED = "{{ {'form': params} | tojson }}"
ASKED = (
    "{{ {'form': params, 'trigger': trigger_of(dag_run), 'versions': versions_of(triggering_asset_events)} | tojson }}"
)
PLANNED = "{{ {'form': params, 'plan': ti.xcom_pull(task_ids='plan')} | tojson }}"


def trigger_of(run: Any) -> str:
    """Return what started the run: hand, schedule or data. A backfill without a form is what the schedule left out."""
    kind = str(getattr(run.run_type, "value", run.run_type))
    if kind == "backfill" and not run.conf:
        return "schedule"
    return _TRIGGERS.get(kind, "hand")


def versions_of(events: Any) -> list[str]:
    """Return the dataset versions that the Asset's events name."""
    named = [event.extra.get("dataset_version") for each in events.values() for event in each]
    return sorted({name for name in named if name})

"""What the tasks of dynamicid_train run, and what they read from the run: the form, the events, the plan."""

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
PLAN = """
set -eu
set -- --trigger "$TRIGGER"
if [ -n "$START_FROM" ]; then set -- "$@" --start-from "$START_FROM"; fi
for version in $VERSIONS; do set -- "$@" --version "$version"; done
"$PYTHON" -m pipelines.cli retrain plan "$@" --skip-code 99
"""
CONFIGURE = """
set -eu
set -- --set "register.promote=$PROMOTE"
if [ -n "$PROFILE" ]; then set -- "$@" --profile "$PROFILE"; fi
if [ -n "$ANCHORING_STEPS" ]; then set -- "$@" --set "train_anchoring.steps=$ANCHORING_STEPS"; fi
if [ -n "$IMR_STEPS" ]; then set -- "$@" --set "train_imr.steps=$IMR_STEPS"; fi
if [ -n "$SEED" ]; then set -- "$@" --set "train_anchoring.seed=$SEED" --set "train_imr.seed=$SEED"; fi
if [ -n "$START" ]; then set -- "$@" --set "train_anchoring.start_from=$START"; fi
while IFS= read -r line; do if [ -n "$line" ]; then set -- "$@" --set "$line"; fi; done <<END
$OVERRIDES
END
"$PYTHON" -m pipelines.cli configure "$@"
if [ -n "$DATASET_VERSION" ]; then
  "$PYTHON" -m pipelines.cli dataset checkout "$DATASET_VERSION"
else
  "$PYTHON" -m pipelines.cli synthesize --identities "$IDENTITIES" --out .dynamicid/photos
  "$PYTHON" -m pipelines.cli ingest .dynamicid/photos --out data/faces
fi
"""
DRIFT = '"$PYTHON" -m pipelines.cli drift $ACCEPT'
PLAN_VALUES = {
    "TRIGGER": "{{ trigger_of(dag_run) }}",
    "VERSIONS": "{{ versions_of(triggering_asset_events, params) }}",
    "START_FROM": "{{ params.start_from or '' }}",
}
CONFIGURE_VALUES = {
    "PROFILE": "{{ params.profile or '' }}",
    "DATASET_VERSION": "{{ ti.xcom_pull(task_ids='plan').dataset_version or '' }}",
    "SEED": "{% set seed = ti.xcom_pull(task_ids='plan').seed %}{{ '' if seed is none else seed }}",
    "START": "{{ ti.xcom_pull(task_ids='plan').start_from or '' }}",
    "IDENTITIES": "{{ params.identities }}",
    "ANCHORING_STEPS": "{{ params.anchoring_steps or '' }}",
    "IMR_STEPS": "{{ params.imr_steps or '' }}",
    "OVERRIDES": "{{ params.overrides | join('\n') }}",
    "PROMOTE": "{{ 'true' if params.promote and not params.human_decision else 'false' }}",
}


def trigger_of(run: Any) -> str:
    """Return what began the run: hand, schedule or data."""
    return _TRIGGERS.get(str(getattr(run.run_type, "value", run.run_type)), "hand")


def versions_of(events: Any, params: Any) -> str:
    """Return the dataset versions that the form or the Asset's events name, with spaces between."""
    named = [event.extra.get("dataset_version") for found in events.values() for event in found]
    return " ".join(sorted({name for name in (*named, params["dataset_version"]) if name}))

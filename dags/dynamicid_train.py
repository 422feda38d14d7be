"""dynamicid_train: from a dataset version to a registered model, one task a stage."""

from __future__ import annotations

from datetime import timedelta

import yaml
from airflow.sdk import DAG, Param
from stage_task import PROJECT, command_task, stage_task

DOC = """
### From a dataset version to a registered DynamicID model

Every run works in a clone of its own (task `workspace`) that shares the DVC cache, so parallel runs do not meet.
Each stage runs through DVC: what did not change comes from the cache, and a retry resumes an interrupted training.
`save_run` keeps the run as a DVC experiment; `dynamicid workspace restore <run id> --out DIR` brings it back.
`register` makes a version with the alias `challenger`, and `champion` if the gates of `params.yaml` let it.
"""
PROFILES = sorted(path.stem for path in (PROJECT / "profiles").glob("*.yaml"))
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]

CONFIGURE = """
set -eu
set -- --profile "$PROFILE"
if [ -n "$ANCHORING_STEPS" ]; then set -- "$@" --set "train_anchoring.steps=$ANCHORING_STEPS"; fi
if [ -n "$IMR_STEPS" ]; then set -- "$@" --set "train_imr.steps=$IMR_STEPS"; fi
while IFS= read -r line; do if [ -n "$line" ]; then set -- "$@" --set "$line"; fi; done <<END
$OVERRIDES
END
"$PYTHON" -m pipelines.cli configure "$@" --set "register.promote=$PROMOTE"
if [ -n "$DATASET_VERSION" ]; then
  "$PYTHON" -m pipelines.cli dataset checkout "$DATASET_VERSION"
else
  "$PYTHON" -m pipelines.cli synthesize --identities "$IDENTITIES" --out .dynamicid/photos
  "$PYTHON" -m pipelines.cli ingest .dynamicid/photos --out data/faces
fi
"""
FORM = {
    "profile": Param("tiny", type="string", enum=PROFILES, description="Parameter file to start from."),
    "dataset_version": Param(
        None, type=["null", "string"], pattern=r"^faces-v[0-9]+$", description="A dataset version, such as faces-v3."
    ),
    "identities": Param(
        100, type="integer", minimum=4, maximum=100_000, description="Procedural people, where no version is given."
    ),
    "anchoring_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "imr_steps": Param(None, type=["null", "integer"], minimum=1, description="Default: the profile's."),
    "overrides": Param([], type="array", items={"type": "string"}, description="section.key=value, one each."),
    "promote": Param(True, type="boolean", description="Let the gates decide on promotion; off: register only."),
}

with DAG(
    "dynamicid_train",
    description="Train, evaluate and register a DynamicID model",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=4,
    params=FORM,
    tags=["dynamicid", "training"],
    default_args={"owner": "dynamicid"},
) as dag:
    workspace = command_task("workspace", 'exec "$PYTHON" -m pipelines.cli workspace create', cwd=str(PROJECT))
    ingest = command_task(
        "ingest",
        CONFIGURE,
        env={
            "PROFILE": "{{ params.profile }}",
            "DATASET_VERSION": "{{ params.dataset_version or '' }}",
            "IDENTITIES": "{{ params.identities }}",
            "ANCHORING_STEPS": "{{ params.anchoring_steps or '' }}",
            "IMR_STEPS": "{{ params.imr_steps or '' }}",
            "OVERRIDES": "{{ params.overrides | join('\n') }}",
            "PROMOTE": "{{ 'true' if params.promote else 'false' }}",
        },
    )
    made_by = {
        out if isinstance(out, str) else next(iter(out)): name
        for name, stage in STAGES.items()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
    }
    tasks = {name: stage_task(name, execution_timeout=timedelta(days=7)) for name in STAGES}
    for name, stage in STAGES.items():
        needs = {made_by[dep] for dep in stage["deps"] if dep in made_by}
        [tasks[need] for need in sorted(needs)] >> tasks[name] if needs else ingest >> tasks[name]
    save_run = command_task("save_run", 'exec "$PYTHON" -m pipelines.cli workspace save', cwd=str(PROJECT))
    register = command_task("register", '"$PYTHON" -m pipelines.cli register --accept-refusal', retries=0)
    workspace >> ingest
    tasks["evaluate"] >> save_run >> register

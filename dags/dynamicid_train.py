"""dynamicid_train: train, evaluate and register a model on a dataset version, one task per stage."""

from __future__ import annotations

import json
import os
from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task
from assets import FACES
from promotion import ANSWERED, QUESTION, answer_of
from stage_task import COMMON, PROMOTION, SKIP, command_task, stage_task
from task_docs import DATASET, EVERYTHING, PROCESSED, STAGES, doc_of, outputs_of
from training_form import ASKED, FILLED, FORM, PLANNED, trigger_of, versions_of

DOC = """
### From a dataset version to a registered DynamicID model

Started by hand (the form), by the schedule (`DYNAMICID_SCHEDULE`, default Sundays at 03:00 UTC) or by a new version of
the Asset `faces`. `plan` decides what is trained and why: the newest version that the events name; without new data a
scheduled run is skipped or trains with another seed, as the section `retrain` of `params.yaml` says.

Each run has its own clone of the repository (task `workspace`) and shares the DVC cache, so parallel runs do not
interfere. Each stage runs through DVC: unchanged results come from the cache, and a retry resumes an interrupted
training. `save_run` keeps the run as a DVC experiment; `dynamicid workspace restore <run id> --out DIR` restores it.
`register` makes a version with the alias `challenger`, and `champion` if it passes the gates of `params.yaml`. With
`human_decision` a person is asked instead (*Required Actions*), and `decide` carries out the answer.
"""

with DAG(
    "dynamicid_train",
    description="Train, evaluate and register a DynamicID model",
    doc_md=DOC,
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(os.environ.get("DYNAMICID_SCHEDULE", "0 3 * * 0"), timezone="UTC"),
        assets=[FACES],
    ),
    max_active_runs=4,
    params=FORM,
    tags=["dynamicid", "training"],
    user_defined_macros={"trigger_of": trigger_of, "versions_of": versions_of, "answer_of": answer_of},
    **COMMON,
) as dag:
    planning = {"form": ASKED, "at_home": True, "output_processor": json.loads}
    plan = command_task("plan", f"retrain plan --skip-code {SKIP}", **planning)
    workspace = command_task("workspace", "workspace create", at_home=True)
    ingest = command_task("ingest", "retrain configure", form=PLANNED)
    # What cannot reach its end stops here, in seconds.
    doctor = command_task("doctor", "doctor --fast", bring=[DATASET], retries=0)
    made_by = {out: name for name, stage in STAGES.items() for out in outputs_of(stage)}
    tasks = {name: stage_task(name, execution_timeout=timedelta(days=7)) for name in STAGES}
    for name, stage in STAGES.items():
        needs = {made_by[dep] for dep in stage["deps"] if dep in made_by}
        [tasks[need] for need in sorted(needs)] >> tasks[name] if needs else doctor >> tasks[name]
    # Data that has drifted from the champion's stops the run before hours of training, unless the form accepts it.
    drift = command_task("drift", "retrain drift", bring=[DATASET, PROCESSED], form=FILLED, retries=1)
    tasks["validate_processed"] >> drift >> tasks["train_anchoring"]
    save_run = command_task("save_run", "workspace save", at_home=True)
    registering = {"bring": [EVERYTHING], "pool": PROMOTION, "output_processor": json.loads}
    register = command_task("register", "register --accept-refusal", **registering)

    @task.short_circuit(doc_md=doc_of("person_asked"))
    def person_asked(params: dict) -> bool:
        """Continue only if the form asks for a person's decision."""
        return bool(params["human_decision"])

    ask = HITLOperator(task_id="ask_a_person", doc_md=doc_of("ask_a_person"), **QUESTION)
    decide = command_task("decide", "retrain decide", form=ANSWERED, pool=PROMOTION)
    plan >> workspace >> ingest >> doctor
    tasks["evaluate"] >> save_run >> register >> person_asked() >> ask >> decide

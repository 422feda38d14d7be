"""dynamicid_maintenance: back up, remove what the limits of `keeping` no longer keep, and clean Airflow's database."""

from __future__ import annotations

import os
import sys

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, CronTriggerTimetable, task
from airflow.sdk.exceptions import AirflowFailException
from stage_task import COMMON, HOME, SKIP, command_task
from task_docs import doc_of

DOC = """
### Housekeeping of a checkout

Runs by itself every night (`DYNAMICID_MAINTENANCE`, default 01:00 UTC). `backup` copies databases, artefacts and tags
to a new folder in `DYNAMICID_BACKUPS`, and is skipped where that is not set; older copies beyond `keeping.backups` go.
`clean` removes workspaces, checkpoints and caches beyond the limits of the section `keeping` of `params.yaml`, and runs
of MLflow that were deleted. `clean_inbox` removes old batches from `_done`. `clean_airflow` removes what Airflow's own
database has of runs older than `DYNAMICID_AIRFLOW_DAYS` (default 90).

Each log says what was removed, and its bytes. Nothing that a process is using is removed, no dataset version and no
registered model.
"""
DAYS = int(os.environ.get("DYNAMICID_AIRFLOW_DAYS", "90"))
# Airflow hides the address of its database from tasks: DATABASE is it, else airflow.cfg names it. Records are not kept
# in other tables, and a database without tables is another one than Airflow's.
CLEAN = """
unset _AIRFLOW_PROCESS_CONTEXT AIRFLOW__CORE__SQL_ALCHEMY_CONN AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
if [ -n "$DATABASE" ]; then export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="$DATABASE"; fi
"$AIRFLOW" -m airflow db check-migrations --migration-wait-timeout 1 &&
exec "$AIRFLOW" -m airflow db clean --clean-before-timestamp "$BEFORE" --skip-archive --yes --error-on-cleanup-failure
"""

with DAG(
    "dynamicid_maintenance",
    description="Back up and clean up",
    doc_md=DOC,
    schedule=CronTriggerTimetable(os.environ.get("DYNAMICID_MAINTENANCE", "0 1 * * *"), timezone="UTC"),
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["dynamicid", "operations"],
    **COMMON,
) as dag:
    backup = command_task("backup", f"backup --skip-code {SKIP}", at_home=True)
    # Also after a backup that failed, as for want of space.
    clean = command_task("clean", "clean --apply --runs", at_home=True, trigger_rule="all_done")
    clean_inbox = command_task("clean_inbox", "inbox clean --apply", at_home=True)
    clean_airflow = BashOperator(
        task_id="clean_airflow",
        doc_md=doc_of("clean_airflow"),
        bash_command=CLEAN,
        env={
            "AIRFLOW": sys.executable,
            "DATABASE": os.environ.get("DYNAMICID_AIRFLOW_DATABASE", ""),
            "BEFORE": f"{{{{ (dag_run.run_after - macros.timedelta(days={DAYS})).isoformat() }}}}",
        },
        append_env=True,
        cwd=HOME,
        trigger_rule="all_done",
    )

    @task(trigger_rule="one_failed", retries=0, doc_md=doc_of("outcome"))
    def outcome() -> None:
        """Fail, so that the run is not taken for a success because its last tasks were one."""
        raise AirflowFailException("a task of this run failed; its log says why")

    backup >> [clean, clean_airflow]
    [backup, clean, clean_inbox, clean_airflow] >> outcome()

"""One factory for every task: a subcommand of the project, run as a process in the workspace of the DAG run."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from notify import report_failure

PROJECT = Path(__file__).resolve().parent.parent
# Airflow may live in a lean environment of its own; then this names the interpreter that has torch and Spark.
PYTHON = os.environ.get("DYNAMICID_PYTHON", sys.executable)
HOME = os.environ.get("DYNAMICID_HOME", str(PROJECT))
INBOX = os.environ.get("DYNAMICID_INBOX", str(Path(HOME) / ".dynamicid" / "inbox"))
WORKSPACE = "{{ ti.xcom_pull(task_ids='workspace') }}"
# The exit code of a command that has nothing to do: the task is skipped, and its log says why.
SKIP = 99
# Pools of docker/pools.json.
GPU, SPARK, PROMOTION = "dynamicid_gpu", "dynamicid_spark", "dynamicid_promotion"
_PLACES = {"preprocess": SPARK, "train_anchoring": GPU, "train_imr": GPU, "evaluate": GPU}
# What every DAG of the project has in common.
COMMON: dict[str, Any] = {
    "catchup": False,
    "default_args": {
        "owner": "dynamicid",
        "on_failure_callback": report_failure,
        "retries": 2,
        "retry_delay": timedelta(seconds=int(os.environ.get("DYNAMICID_RETRY_SECONDS", "30"))),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=6),
    },
}


def command_task(task_id: str, words: str, *, cwd: str = WORKSPACE, form: str | None = None, **options: Any):
    """Return a task that runs the command line with `words`, which are fixed; its result is the last line, a JSON.

    What a user typed reaches it as one JSON document only: `form`, a template that ends with `tojson`, becomes the
    value of an environment variable, which no shell reads.
    """
    return BashOperator(
        task_id=task_id,
        bash_command=f'exec "$PYTHON" -m pipelines.cli {words}',
        cwd=cwd,
        env={
            "PYTHON": PYTHON,
            "DYNAMICID_HOME": HOME,
            "DYNAMICID_INBOX": INBOX,
            "DYNAMICID_AIRFLOW_RUN_ID": "{{ dag_run.dag_id }}/{{ run_id }}",
            **({"DYNAMICID_FORM": form} if form else {}),
        },
        append_env=True,
        skip_on_exit_code=SKIP,
        **options,
    )


def stage_task(name: str, **options: Any):
    """Return the task that brings the DVC stage `name` up to date and records it; a retry resumes the stage."""
    pool = {"pool": _PLACES[name]} if name in _PLACES else {}
    return command_task(name, f"repro {name}", **pool, **options)

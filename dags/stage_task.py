"""Make tasks: each runs one subcommand of the project as a process in the workspace of the DAG run."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from command_operator import CommandOperator
from notify import report_failure
from task_docs import doc_of, pages_of

PROJECT = Path(__file__).resolve().parent.parent
# If Airflow has its own environment, this names the interpreter that has torch and Spark.
PYTHON = os.environ.get("DYNAMICID_PYTHON", sys.executable)
HOME = os.environ.get("DYNAMICID_HOME", str(PROJECT))
INBOX = os.environ.get("DYNAMICID_INBOX", str(Path(HOME) / ".dynamicid" / "inbox"))
WORKSPACE = "{{ ti.xcom_pull(task_ids='workspace') }}"
# Exit code of a command that has nothing to do: the task is skipped, its log states the reason.
SKIP = 99
# Pools of docker/pools.json.
GPU, SPARK, PROMOTION = "dynamicid_gpu", "dynamicid_spark", "dynamicid_promotion"
_PLACES = {"preprocess": SPARK, "train_anchoring": GPU, "train_imr": GPU, "evaluate": GPU}
# Settings of every DAG of the project.
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
    """Return a task that runs the command line with the constant `words`; its result is the last line of the output.

    Text that a user typed must not reach a shell: `form`, a template that ends with `tojson`, becomes the value of an
    environment variable.
    """
    command = words.partition(f" --skip-code {SKIP}")[0]
    return CommandOperator(
        task_id=task_id,
        doc_md=doc_of(command),
        pages=pages_of(command),
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
    """Return a task that brings the DVC stage `name` up to date and records it; a retry resumes the stage."""
    pool = {"pool": _PLACES[name]} if name in _PLACES else {}
    return command_task(name, f"repro {name}", **pool, **options)

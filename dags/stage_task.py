"""One factory for every task: a subcommand of the project, run as a process in the workspace of the DAG run."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator

PROJECT = Path(__file__).resolve().parent.parent
# Airflow may live in a lean environment of its own; then this names the interpreter that has torch and Spark.
PYTHON = os.environ.get("DYNAMICID_PYTHON", sys.executable)
WORKSPACE = "{{ ti.xcom_pull(task_ids='workspace') }}"


def command_task(task_id: str, script: str, *, cwd: str = WORKSPACE, env: dict[str, str] | None = None, **options: Any):
    """Return a task that runs `script`, in which "$PYTHON" -m pipelines.cli is the command line.

    What a user typed into the form reaches the script through `env` only: a template in the script itself would be
    executed by the shell.
    """
    return BashOperator(
        task_id=task_id,
        bash_command=script,
        cwd=cwd,
        env={
            "PYTHON": PYTHON,
            "DYNAMICID_HOME": os.environ.get("DYNAMICID_HOME", str(PROJECT)),
            "DYNAMICID_AIRFLOW_RUN_ID": "{{ dag_run.dag_id }}/{{ run_id }}",
            **(env or {}),
        },
        append_env=True,
        **{
            "retries": 2,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=10),
            **options,
        },
    )


def stage_task(name: str, **options: Any):
    """Return the task that brings the DVC stage `name` up to date and records it; a retry resumes the stage."""
    return command_task(name, f'"$PYTHON" -m pipelines.cli repro {name}', **options)

"""Make tasks: each runs one subcommand of the project as a process in the workspace of the DAG run, on any machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from command_operator import CommandOperator
from notify import report_failure
from task_docs import STAGES, data_of, doc_of, pages_of

PROJECT = Path(__file__).resolve().parent.parent
# If Airflow has its own environment, this names the interpreter that has torch and Spark.
PYTHON = os.environ.get("DYNAMICID_PYTHON", sys.executable)
HOME = os.environ.get("DYNAMICID_HOME", str(PROJECT))
INBOX = os.environ.get("DYNAMICID_INBOX", str(Path(HOME) / ".dynamicid" / "inbox"))
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


def command_task(
    task_id: str,
    words: str,
    *,
    at_home: bool = False,
    bring: Sequence[str] = (),
    keep: Sequence[str] = (),
    form: str | None = None,
    **options: Any,
):
    """Return a task that runs the command line with the constant `words`; its result is the last line of the output.

    It runs in the workspace that the machine at hand finds by the run's id, or in the checkout (`at_home`). On several
    machines it brings the inputs `bring` by DVC first and hands over the folders `keep`; outputs of stages are handed
    over in any case. Text that a user typed must not reach a shell: `form`, a template that ends with
    `tojson`, becomes the value of an environment variable.
    """
    command = words.partition(f" --skip-code {SKIP}")[0]
    inputs = [word for path in bring for word in ("--bring", path)] + [
        word for path in keep for word in ("--keep", path)
    ]
    place = "" if at_home else " ".join(["workspace run", *inputs, "-- "])
    return CommandOperator(
        task_id=task_id,
        doc_md=doc_of(command),
        pages=pages_of(command),
        bash_command=f'exec "$PYTHON" -m pipelines.cli {place}{words}',
        cwd=HOME,
        env={
            "PYTHON": PYTHON,
            "DYNAMICID_HOME": HOME,
            "DYNAMICID_INBOX": INBOX,
            "DYNAMICID_AIRFLOW_RUN_ID": "{{ dag_run.dag_id }}/{{ run_id }}",
            # In tasks Airflow sets it to the address of no database; `backup` would take that for its.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "",
            **({"DYNAMICID_FORM": form} if form else {}),
        },
        append_env=True,
        skip_on_exit_code=SKIP,
        **options,
    )


def stage_task(name: str, **options: Any):
    """Return a task that brings the DVC stage `name` up to date and records it; a retry resumes the stage."""
    pool = {"pool": _PLACES[name]} if name in _PLACES else {}
    return command_task(name, f"repro {name}", bring=data_of(STAGES[name]), **pool, **options)

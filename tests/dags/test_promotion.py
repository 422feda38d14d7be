"""A person's answer reaches the command line as JSON that it can read."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from pipelines.registry.training_run import Answer, read_run

REGISTERED = {"model_name": "dynamicid", "version": "3"}


@pytest.mark.parametrize(
    ("option", "user", "choice", "by"),
    [
        ("Promote", {"name": "ann"}, "promote", "ann"),
        ("Promote though gates failed", {"name": "'\"; $(x) </script>"}, "override", "'\"; $(x) </script>"),
        ("Refuse", None, "refuse", "nobody in time"),
    ],
)
def test_an_answer_is_passed_on(project: Path, option: str, user: dict | None, choice: str, by: str) -> None:
    dag = runpy.run_path(str(project / "dags" / "promotion.py"))
    assert option in dag["QUESTION"]["options"]
    results = {"register": REGISTERED, "ask_a_person": {"chosen_options": [option], "responded_by_user": user}}
    ti = SimpleNamespace(xcom_pull=lambda task_ids: results[task_ids])
    text = jinja2.Environment().from_string(dag["ANSWERED"]).render(ti=ti, answer_of=dag["answer_of"])
    assert read_run(text).answer == Answer(model="models:/dynamicid/3", choice=choice, by=by)

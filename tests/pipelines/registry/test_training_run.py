"""What a scheduler hands over: every field is checked, and becomes changes of parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.registry.retraining import Plan
from pipelines.registry.training_run import TrainingRun, read_run


def _run(**document: Any) -> TrainingRun:
    return read_run(json.dumps(document))


def test_nothing_filled_is_a_run_by_hand_that_the_gates_decide() -> None:
    run = _run()
    assert (run.trigger, run.dataset_versions(), run.overrides()) == ("hand", [], ["register.promote=true"])


def test_form_and_plan_become_parameters_and_what_was_typed_comes_last() -> None:
    plan = {"train": True, "reason": "so", "seed": 0, "start_from": "models:/dynamicid/2"}
    typed = ["train_imr.steps=9", "", " evaluate.people=$(touch x) "]
    run = _run(form={"anchoring_steps": 4, "overrides": typed}, plan=plan)
    assert run.plan == Plan(**plan)
    assert run.overrides() == [
        "register.promote=true",
        "train_anchoring.steps=4",
        "train_anchoring.seed=0",
        "train_imr.seed=0",
        "train_anchoring.start_from=models:/dynamicid/2",
        "train_imr.start_from=models:/dynamicid/2",
        "train_imr.steps=9",
        "evaluate.people=$(touch x)",
    ]


def test_from_scratch_means_new_weights_whatever_the_parameters_say() -> None:
    plan = {"train": True, "reason": "so", "start_from": "scratch"}
    starts = ["train_anchoring.start_from=null", "train_imr.start_from=null"]
    assert _run(plan=plan).overrides() == ["register.promote=true", *starts]


@pytest.mark.parametrize("form", [{"promote": False}, {"human_decision": True}])
def test_the_gates_do_not_promote_where_they_shall_not_or_a_person_is_asked(form: dict) -> None:
    assert _run(form=form).overrides() == ["register.promote=false"]


def test_events_and_form_name_the_versions() -> None:
    run = _run(form={"dataset_version": "latest"}, versions=["faces-v2", "faces-v1"], trigger="data")
    assert run.dataset_versions() == ["faces-v1", "faces-v2", "latest"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"form": {"surprise": 1}}', "unknown key form.surprise"),
        ('{"form": {"identities": "many"}}', "form.identities = 'many': "),
        ('{"trigger": "moon"}', "trigger = 'moon': "),
        ('{"answer": {"model": "m", "choice": "refuse"}}', "missing key answer.by"),
        ("{", "Invalid JSON"),
    ],
)
def test_what_does_not_fit_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match="the form of the run: ") as error:
        read_run(text)
    assert message in str(error.value)

"""`dynamicid retrain`: each task calls the command that people use, with the arguments of the form."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.registry.retraining import Plan


def _exit(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Replace the commands that are called; list the calls in order: name, arguments, keyword arguments."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    for name in ("configure", "dataset.checkout", "synthesize", "ingest", "drift", "promote"):
        module, _, function = name.partition(".")
        place = importlib.import_module(f"pipelines.commands.{module}")
        monkeypatch.setattr(place, function or module, lambda *args, _n=name, **named: calls.append((_n, args, named)))
    return calls


def test_the_form_comes_from_the_environment(called: list, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"form": {"profile": "tiny", "identities": 8}, "plan": {"train": True, "reason": "so"}}
    monkeypatch.setenv("DYNAMICID_FORM", json.dumps(document))
    assert _exit("retrain", "configure") == 0
    assert [name for name, _, _ in called] == ["configure", "synthesize", "ingest"]
    assert called[0][2]["profile"] == "tiny"
    assert called[1][2]["identities"] == 8
    assert "accept_unrelated" not in called[2][2], "they are no next version of anything"


def test_a_planned_version_is_checked_out(called: list) -> None:
    document = {"plan": {"train": True, "reason": "so", "dataset_version": "faces-v3"}}
    assert _exit("retrain", "configure", "--form", json.dumps(document)) == 0
    assert [(name, arguments) for name, arguments, _ in called][1:] == [("dataset.checkout", ("faces-v3",))]


def test_a_profile_of_the_form_says_what_its_training_starts_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path
) -> None:
    """`photographs` has a base of its own: the champion of the checkout's profile does not fit it."""
    planned: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "pipelines.registry.retraining.make_plan", lambda *args: planned.append(args) or Plan(True, "so")
    )
    shutil.copy2(project / "profiles" / "tiny.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for form in ({}, {"profile": "photographs"}):
        assert _exit("retrain", "plan", "--form", json.dumps({"form": form})) == 0
    starts = [(params.profile, params.retrain.start_from) for _, params, *_ in planned]
    assert starts == [("tiny", "champion"), ("photographs", "parameters")]


@pytest.mark.parametrize("accepted", [True, False])
def test_drift_fails_unless_the_form_accepts_it(called: list, accepted: bool) -> None:
    assert _exit("retrain", "drift", "--form", json.dumps({"form": {"accept_drift": accepted}})) == 0
    assert called[0][2]["accept"] is accepted


@pytest.mark.parametrize(
    ("choice", "refuse", "override"), [("promote", False, False), ("override", False, True), ("refuse", True, False)]
)
def test_the_answer_is_carried_out(called: list, choice: str, refuse: bool, override: bool) -> None:
    answer = {"model": "models:/dynamicid/2", "choice": choice, "by": "ann"}
    assert _exit("retrain", "decide", "--form", json.dumps({"answer": answer})) == 0
    assert called == [
        ("promote", ("models:/dynamicid/2",), {"by": "ann", "refuse": refuse, "override_gates": override})
    ]


@pytest.mark.parametrize("command", ["configure", "decide"])
def test_a_document_without_plan_or_answer_is_wrong_use(command: str, called: list) -> None:
    assert _exit("retrain", command, "--form", "{}") == 2
    assert called == []

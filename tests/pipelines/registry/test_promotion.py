"""The alias `champion` moves with a recorded decision, only from the champion of the comparison, and can move back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry import moves
from pipelines.registry.decisions import Decision, add_decision, decisions_of
from pipelines.registry.moves import finish_moves
from pipelines.registry.promotion import present_state, promote, refuse, rollback
from pipelines.registry.registry import champion_of, find_version, open_registry

Make = Callable[..., Any]


def decisions(root: Path, version: str) -> list[tuple[str, str, str | None]]:
    found = find_version(open_registry(root), f"models:/dynamicid/{version}")
    return [(one.decision, one.by, one.champion) for one in decisions_of(found)]


def champion(root: Path) -> str | None:
    found = champion_of(open_registry(root), "dynamicid")
    return None if found is None else str(found.version)


def test_a_person_promotes_and_every_decision_is_kept(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    before = find_version(open_registry(mlflow_checkout), "models:/dynamicid/1").tags
    move = promote(mlflow_checkout, "models:/dynamicid/1", by="Ada", reason="good likeness")
    assert (move.champion, move.before) == ("1", None)
    assert champion(mlflow_checkout) == "1"
    assert decisions(mlflow_checkout, "1") == [("not_asked", "gates", None), ("promoted", "Ada", None)]
    after = find_version(open_registry(mlflow_checkout), "models:/dynamicid/1").tags
    assert {key: after[key] for key in before} == before
    kept = json.loads(after["dynamicid.decision.2"])
    assert kept["reasons"] == ["good likeness"]
    assert kept["evidence"]["evaluation_set"] == "e"
    assert kept["at"].endswith("+00:00")
    assert promote(mlflow_checkout, "models:/dynamicid/1", by="Ada").champion == "1"
    assert len(decisions(mlflow_checkout, "1")) == 2, "the same decision again is no new one"
    assert promote(mlflow_checkout, "models:/dynamicid/1", by="Eve", reason="I agree").already
    assert decisions(mlflow_checkout, "1")[2:] == [("promoted", "Eve", "1")]
    assert champion(mlflow_checkout) == "1"


def test_what_a_confirmed_champion_was_compared_with_is_not_itself(mlflow_checkout: Path, compared: Make) -> None:
    for version, before in (("1", None), ("2", "1")):
        compared(before)
        for person in ("Ada", "Eve"):
            promote(mlflow_checkout, f"models:/dynamicid/{version}", by=person)
            client = open_registry(mlflow_checkout)
            state = present_state(client, find_version(client, f"models:/dynamicid/{version}"))
            assert state is not None
            assert (state.champion, state.compared_with) == (version, before)


def test_the_page_of_the_model_has_the_history_of_its_champion(mlflow_checkout: Path, compared: Make) -> None:
    """MLflow itself keeps only where an alias is now; what a person wrote above stays."""
    compared(None)
    client = open_registry(mlflow_checkout)
    client.update_registered_model("dynamicid", "Ours.")
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada", reason="a | b")
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    rollback(mlflow_checkout, "dynamicid", by="Eve", reason="it drew two noses")
    own, *table = client.get_registered_model("dynamicid").description.split("\n")
    assert own == "Ours."
    lines = [line.replace("&emsp;", "") for line in table[table.index("## History of the alias champion") + 4 :]]
    rows = [re.sub(r"^\| \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| ", "", line) for line in lines if line]
    assert sorted(rows) == [
        "v1 | promoted | Ada | none | a \\| b |",
        "v1 | restored | Eve | v2 | it drew two noses |",
        "v2 | promoted | Ada | v1 |  |",
        "v2 | rolled back | Eve | v2 | it drew two noses |",
    ]


def test_a_challenger_compared_with_another_champion_is_not_promoted(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    with pytest.raises(StageFailed, match=r"v2 is not promoted: the champion is v1 now, the comparison was with none"):
        promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    assert champion(mlflow_checkout) == "1"
    assert decisions(mlflow_checkout, "2") == [("not_asked", "gates", None)]


def test_failed_gates_need_to_be_overridden_and_stay_on_record(mlflow_checkout: Path, compared: Make) -> None:
    compared(None, "id_similarity 0.100 < 0.400")
    with pytest.raises(StageFailed, match=r"id_similarity 0\.100 < 0\.400; `--override-gates"):
        promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada", override_gates=True, reason="a first one")
    kept = find_version(open_registry(mlflow_checkout), "models:/dynamicid@champion").tags["dynamicid.decision.2"]
    assert json.loads(kept)["reasons"] == ["a first one", "overridden: id_similarity 0.100 < 0.400"]


def test_refusing_keeps_the_champion_and_is_written_once(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    compared("1")
    for _ in range(2):
        assert refuse(mlflow_checkout, "models:/dynamicid/2", by="Bob", reason="squints").champion == "1"
    assert decisions(mlflow_checkout, "2") == [("not_asked", "gates", "1"), ("refused", "Bob", "1")]
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/3", by="Ada")
    refuse(mlflow_checkout, "models:/dynamicid/2", by="Eve")
    with pytest.raises(StageFailed, match="the champion is v3 now, the comparison was with v1"):
        promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    with pytest.raises(UserError, match="this is the champion"):
        refuse(mlflow_checkout, "models:/dynamicid/3", by="Bob")
    with pytest.raises(UserError, match="name of the person"):
        refuse(mlflow_checkout, "models:/dynamicid/2", by="gates")


def test_rollback_goes_back_step_by_step_and_says_where(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    with pytest.raises(UserError, match="nothing to roll back"):
        rollback(mlflow_checkout, "dynamicid", by="Ada")
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    for number in (2, 3):
        compared(str(number - 1))
        promote(mlflow_checkout, f"models:/dynamicid/{number}", by="Ada")
    move = rollback(mlflow_checkout, "dynamicid", by="Eve", reason="it drew two noses")
    assert (move.champion, move.before, champion(mlflow_checkout)) == ("2", "3", "2")
    assert decisions(mlflow_checkout, "3")[-1] == ("rolled_back", "Eve", "3")
    assert decisions(mlflow_checkout, "2")[-1] == ("restored", "Eve", "3")
    assert rollback(mlflow_checkout, "dynamicid", by="Eve").champion == "1"
    with pytest.raises(UserError, match="no champion before it"):
        rollback(mlflow_checkout, "dynamicid", by="Eve")
    assert rollback(mlflow_checkout, "dynamicid", by="Eve", to="models:/dynamicid/3").champion == "3"
    compared("3")
    with pytest.raises(UserError, match="v4 was never champion"):
        rollback(mlflow_checkout, "dynamicid", by="Eve", to="models:/dynamicid/4")
    assert champion(mlflow_checkout) == "3"


def test_two_processes_that_promote_at_once_give_one_champion(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    compared("1")
    compared("1")
    processes = {
        version: subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "promote", f"models:/dynamicid/{version}", "--by", f"P{version}"],
            cwd=mlflow_checkout,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "3")
    }
    ended = {version: process.communicate(timeout=120) for version, process in processes.items()}
    codes = {version: process.returncode for version, process in processes.items()}
    assert sorted(codes.values()) == [0, 1], ended
    won = next(version for version, code in codes.items() if code == 0)
    lost = next(version for version, code in codes.items() if code == 1)
    assert champion(mlflow_checkout) == won
    assert f"the champion is v{won} now, the comparison was with v1" in ended[lost][1]
    assert decisions(mlflow_checkout, won)[-1] == ("promoted", f"P{won}", "1")
    assert decisions(mlflow_checkout, lost) == [("not_asked", "gates", "1")]


def test_a_promotion_that_was_killed_before_the_alias_moved_is_finished(
    mlflow_checkout: Path, compared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(None)
    client = open_registry(mlflow_checkout)
    monkeypatch.setattr(moves, "_carry_out", lambda *_: None)
    moves.move_champion(client, "dynamicid", "1", None, [("1", Decision("promoted", "Ada", None))])
    monkeypatch.undo()
    assert champion(mlflow_checkout) is None
    assert promote(mlflow_checkout, "models:/dynamicid/1", by="Ada").champion == "1"
    assert champion(mlflow_checkout) == "1"
    assert decisions(mlflow_checkout, "1") == [("not_asked", "gates", None), ("promoted", "Ada", None)]


def test_a_rollback_goes_back_past_later_evaluations_of_the_champion(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    client = open_registry(mlflow_checkout)
    add_decision(client, find_version(client, "models:/dynamicid/2"), Decision("promoted", "gates", "2"))
    assert rollback(mlflow_checkout, "dynamicid", by="Eve").champion == "1"


def test_an_earlier_champion_is_not_restored_by_itself(mlflow_checkout: Path, compared: Make) -> None:
    """v2 was promoted over v1, v3 over v2, then a rollback to v1: nothing was interrupted. A person does the same."""
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    for number in (2, 3):
        compared(str(number - 1))
        promote(mlflow_checkout, f"models:/dynamicid/{number}", by="Ada")
    assert rollback(mlflow_checkout, "dynamicid", by="Eve", to="models:/dynamicid/1").champion == "1"
    client = open_registry(mlflow_checkout)
    assert finish_moves(client, "dynamicid") is None
    client.set_registered_model_alias("dynamicid", "champion", "2")
    client.set_registered_model_alias("dynamicid", "champion", "1")
    assert finish_moves(client, "dynamicid") is None
    assert champion(mlflow_checkout) == "1"
    assert refuse(mlflow_checkout, "models:/dynamicid/2", by="Eve").champion == "1"


def test_a_rollback_to_a_version_that_was_never_champion_names_it(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    compared(None)
    client = open_registry(mlflow_checkout)
    add_decision(client, find_version(client, "models:/dynamicid/2"), Decision("promoted", "Ada", "1"))
    client.set_registered_model_alias("dynamicid", "champion", "2")
    with pytest.raises(UserError, match=r"^models:/dynamicid/1: v1 was never champion"):
        rollback(mlflow_checkout, "dynamicid", by="Eve")


@pytest.mark.parametrize("uri", ["dynamicid/1", "models:/dynamicid", "models:/dynamicid/latest"])
def test_a_uri_of_another_form_is_refused(mlflow_checkout: Path, uri: str) -> None:
    with pytest.raises(UserError, match="expected models:/<name>/<version>"):
        promote(mlflow_checkout, uri, by="Ada")


def test_an_unknown_version_is_named_with_those_that_exist(mlflow_checkout: Path, compared: Make) -> None:
    compared(None)
    with pytest.raises(UserError, match=r"models:/dynamicid/9: no such version in the registry; there are v1"):
        promote(mlflow_checkout, "models:/dynamicid/9", by="Ada")

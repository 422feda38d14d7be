"""A move of `champion` is whole or not begun, wherever the process ends, and never overwrites what a person set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed
from pipelines.registry.decisions import Decision, decisions_of
from pipelines.registry.moves import ChampionMoved, finish_moves, move_champion
from pipelines.registry.promotion import promote, rollback
from pipelines.registry.registry import champion_number, find_version, open_registry
from pipelines.registry.tracking import Tracking

Make = Callable[..., Any]
_WRITES = ("set_model_version_tag", "set_registered_model_alias", "delete_model_version_tag")


class Ended(BaseException):
    """The process ends here."""


class Mortal(Tracking):
    """A client whose process ends before its `last`th write; before it, `meanwhile` happens."""

    def __init__(self, home: Path, last: int, meanwhile: Callable[[], object] | None = None) -> None:
        super().__init__(home)
        self._left, self._meanwhile = last, meanwhile

    def __getattr__(self, name: str) -> Any:
        if name in _WRITES:
            self._left -= 1
            if self._left == 0:
                if self._meanwhile is None:
                    raise Ended
                self._meanwhile()
        return super().__getattr__(name)


def state(client: Any) -> tuple[str | None, list[list[tuple[str, str]]], list[str]]:
    """Return the champion, the decisions of versions 1 and 2, and the marks of unfinished moves."""
    versions = [find_version(client, f"models:/dynamicid/{number}") for number in "12"]
    decisions = [[(one.decision, one.by) for one in decisions_of(version)] for version in versions]
    marks = [tag for version in versions for tag in version.tags if tag == "dynamicid.moving"]
    return champion_number(client, "dynamicid"), decisions, marks


_MOVE = [
    ("1", Decision("rolled_back", "Eve", "1", (), {"to": "2"})),
    ("2", Decision("restored", "Eve", "1", (), {"from": "1"})),
]


@pytest.mark.parametrize("last", range(1, 7))
def test_wherever_a_move_ends_the_next_call_finishes_it(mlflow_checkout: Path, compared: Make, last: int) -> None:
    compared(None)
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    client = open_registry(mlflow_checkout)
    before = state(client)
    try:
        move_champion(Mortal(mlflow_checkout, last), "dynamicid", "2", "1", _MOVE)
        ended = False
    except Ended:
        ended = True
    assert ended == (last < 6), "there are five writes"
    finished = finish_moves(client, "dynamicid")
    assert (finished is not None) == (1 < last < 6)
    judged = ("not_asked", "gates")
    whole = ("2", [[judged, ("promoted", "Ada"), ("rolled_back", "Eve")], [judged, ("restored", "Eve")]], [])
    assert state(client) == (before if last == 1 else whole)
    assert finish_moves(client, "dynamicid") is None


@pytest.mark.parametrize("present", ["3", None])
def test_an_alias_that_a_person_sets_in_between_stays(mlflow_checkout: Path, compared: Make, present: str) -> None:
    for _ in range(3):
        compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    client = open_registry(mlflow_checkout)

    def person() -> None:
        if present is None:
            client.delete_registered_model_alias("dynamicid", "champion")
        else:
            client.set_registered_model_alias("dynamicid", "champion", present)

    with pytest.raises(ChampionMoved):
        # After the first read of the champion, when the move writes what it is about to do.
        move_champion(Mortal(mlflow_checkout, 1, person), "dynamicid", "2", "1", _MOVE)
    judged = ("not_asked", "gates")
    assert state(client) == (present, [[judged, ("promoted", "Ada")], [judged]], [])
    with pytest.raises(Ended):
        move_champion(Mortal(mlflow_checkout, 2), "dynamicid", "2", present, _MOVE)
    client.set_registered_model_alias("dynamicid", "champion", "1")
    assert finish_moves(client, "dynamicid") is None
    assert state(client) == ("1", [[judged, ("promoted", "Ada")], [judged]], [])


def test_a_person_who_takes_a_promotion_back_by_hand_is_not_overruled(mlflow_checkout: Path, compared: Make) -> None:
    """In MLflow's own page, where no decision is recorded: every later call leaves the alias alone."""
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    client = open_registry(mlflow_checkout)
    client.set_registered_model_alias("dynamicid", "champion", "1")
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/3", by="Ada")
    client.delete_registered_model_alias("dynamicid", "champion")
    assert finish_moves(client, "dynamicid") is None
    with pytest.raises(StageFailed, match="the champion is none now, the comparison was with v1"):
        promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    assert champion_number(client, "dynamicid") is None


def test_a_rollback_that_was_killed_is_not_made_twice(mlflow_checkout: Path, compared: Make) -> None:
    for number in (1, 2, 3):
        compared(str(number - 1) if number > 1 else None)
        promote(mlflow_checkout, f"models:/dynamicid/{number}", by="Ada")
    client = open_registry(mlflow_checkout)
    entries = [
        ("3", Decision("rolled_back", "Eve", "3", (), {"to": "2"})),
        ("2", Decision("restored", "Eve", "3", (), {"from": "3"})),
    ]
    with pytest.raises(Ended):
        move_champion(Mortal(mlflow_checkout, 3), "dynamicid", "2", "3", entries)
    assert champion_number(client, "dynamicid") == "2"
    assert rollback(mlflow_checkout, "dynamicid", by="Eve").champion == "2"
    assert rollback(mlflow_checkout, "dynamicid", by="Eve").champion == "1"


def test_an_earlier_champion_that_a_person_deleted_does_not_stop_a_rollback_by_name(
    mlflow_checkout: Path, compared: Make
) -> None:
    compared(None)
    promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    compared("1")
    promote(mlflow_checkout, "models:/dynamicid/2", by="Ada")
    client = open_registry(mlflow_checkout)
    with pytest.raises(Ended):
        move_champion(Mortal(mlflow_checkout, 3), "dynamicid", "1", "2", [("2", Decision("rolled_back", "Eve", "2"))])
    client.delete_model_version("dynamicid", "2")
    assert finish_moves(client, "dynamicid") is not None
    assert champion_number(client, "dynamicid") == "1"


def test_files_that_are_gone_or_changed_are_no_champion(mlflow_checkout: Path, compared: Make) -> None:
    """The test's version has the hash of an adapter, but no files of one."""
    compared(None)
    client = open_registry(mlflow_checkout)
    client.set_model_version_tag("dynamicid", "1", "dynamicid.adapter_hash", "0" * 64)
    with pytest.raises(StageFailed, match=r"its files .*; it is not promoted"):
        promote(mlflow_checkout, "models:/dynamicid/1", by="Ada")
    assert champion_number(client, "dynamicid") is None

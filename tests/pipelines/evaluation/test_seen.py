"""Held-out people whom shipped networks saw are refused by name, or left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.face.ledger import ledger
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.evaluation.seen import leave_out_seen, ledgers_of, plain

PEOPLE = [f"p{number}" for number in range(8)]
SEEN = ledger(train=PEOPLE[:2], val=PEOPLE[2:3])
LEDGERS = {"adapter": {role: frozenset(hashes.split()) for role, hashes in SEEN.items()}}


def changed(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changes)})


def test_a_planted_overlap_is_refused_by_name(params: Params) -> None:
    with pytest.raises(UserError, match=r"3 people of split test: p0 \(adapter, train\); p1 .*; p2 \(adapter, val\)"):
        leave_out_seen(PEOPLE, LEDGERS, params)
    assert leave_out_seen(PEOPLE[3:], LEDGERS, params) == frozenset()
    many = {"foundation": {"train": frozenset(ledger(train=PEOPLE)["train"].split())}}
    with pytest.raises(UserError, match=r"8 people .* and 3 more; .*evaluate\.seen_people=leave_out"):
        leave_out_seen(PEOPLE, many, params)


def test_they_take_no_part_where_that_is_asked_for(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = leave_out_seen(PEOPLE, LEDGERS, changed(params, seen_people="leave_out"))
    assert left_out == {"p0", "p1", "p2"}
    assert "networks that ship have seen 3 people of split test: p0" in capsys.readouterr().err
    taking_part = set(PEOPLE) - left_out
    assert plain(taking_part, left_out, LEDGERS) == {"adapter": {"train": 0, "val": 0}, "left_out": 3}


def test_choices_may_be_made_on_people_on_whom_choices_were_made(params: Params) -> None:
    chosen = changed(params, split="val")
    assert leave_out_seen(PEOPLE[2:], LEDGERS, chosen) == frozenset()
    with pytest.raises(UserError, match="2 people of split val"):
        leave_out_seen(PEOPLE, LEDGERS, chosen)


def test_ledgers_are_those_of_the_networks_that_the_parameters_name(
    params: Params, project: Path, tmp_path: Path
) -> None:
    assert {name: set(roles) for name, roles in ledgers_of(params).items()} == {
        "foundation": {"train", "val"},
        "adapter": {"train", "val"},
    }
    assert set(ledgers_of(changed(params, shipped_adapter=None))) == {"foundation"}
    shipped = project / "model" / "foundation" / "weights" / "adapter"
    assert set(ledgers_of(changed(params, shipped_adapter=None), shipped)) == {"foundation", "adapter"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps({"seen": {"adapter": ledger(train=["anna"], val=[])}}))
    own = ledgers_of(changed(params, shipped_adapter=str(tmp_path / "adapter")))
    with pytest.raises(UserError, match=r"anna \(adapter, train\)"):
        leave_out_seen(["anna", "ben"], own, params)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        ledgers_of(changed(params, shipped_adapter=str(tmp_path / "adapter")))

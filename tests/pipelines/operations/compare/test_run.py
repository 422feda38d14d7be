"""Two adapters and the base model alone beside each other: one evaluation set, one table, done once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.compare import evaluate
from pipelines.operations.compare.plan import Asked, Row, plan_rows
from pipelines.operations.compare.run import compare, summary_of
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import PARENT, search_runs
from tests.pipelines.operations.compare.conftest import FEW, Home

pytestmark = pytest.mark.usefixtures("empty_home_database")


@pytest.fixture
def empty_home_database(home: Home, empty_database: Path) -> None:
    shutil.copy2(empty_database, home.root / "mlflow.db")


def rows_of(home: Home, *more: str, **asked: Any) -> list[Row]:
    asked = {"versions": ("first", "second"), "methods": ("text_only",), **asked}
    return plan_rows(Asked(changes=(*FEW, *more), **asked), home.params, home.root)


def test_one_table_one_page_and_a_run_for_every_cell(
    home: Home, processed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = home.root / "reports" / "compare"
    found = compare(rows_of(home), processed, home.root, out)
    document = json.loads((out / "comparison.json").read_text())
    assert [row["name"] for row in document["rows"]] == ["text_only", "first", "second"]
    assert (document["reference"], document["people"]) == ("text_only", 2)
    text_only, first, second = document["rows"]
    drawn = json.loads(next(home.root.glob(".dynamicid/compare/evaluated/*/metrics.json")).read_text())
    assert document["evaluation_set"] == drawn["evaluation_set"]
    # Of the base alone there are the figures of all graded cells, but for those of several noises.
    assert set(first["metrics"]) - set(text_only["metrics"]) == {"diversity", "gate_in_face"}
    assert set(text_only["metrics"]) >= {"s", "id_similarity", "expression_accuracy", "kid", "binding"}
    assert first["metrics"]["clip_t"]["value"] != text_only["metrics"]["clip_t"]["value"]
    gap = second["differences"]["clip_t"]
    values = [row["metrics"]["clip_t"]["value"] for row in (second, text_only)]
    assert gap["value"] == pytest.approx(values[0] - values[1], abs=1e-5)
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert [len(row["cells"]) for row in document["rows"]] == [1, 1, 1]
    for row in (first, second):
        assert (out / row["cells"][0]["report"]).is_file()
    page = (out / "index.html").read_text()
    assert "One seed" in page
    assert page.count("<figure") == 4 * (1 + 3) + 1 * (2 + 3), "two cells of two people, and a picture of two"
    assert str(home.root) not in page + (out / "comparison.json").read_text()
    assert summary_of(found)[0].startswith("text_only: s ")

    client = open_registry(home.root)
    (parent,) = search_runs(client, "FINISHED", {"stage": "compare"})
    cells = search_runs(client, "FINISHED", {PARENT: parent.info.run_id})
    assert sorted(run.info.run_name for run in cells) == ["first", "second"]
    assert {row["cells"][0]["run"] for row in (first, second)} == {run.info.run_id for run in cells}
    assert all("clip_t" in run.data.metrics for run in cells)
    names = [item.path for item in client.list_artifacts(parent.info.run_id)]
    assert names == ["comparison.json", "table.tex"], "nothing says whose photos the page shows, so it is not there"

    # Again, nothing is evaluated, and nothing recorded.
    monkeypatch.setattr("pipelines.evaluation.evaluate.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    before = (out / "comparison.json").read_bytes()
    compare(rows_of(home), processed, home.root, out)
    assert (out / "comparison.json").read_bytes() == before
    assert len(search_runs(client, None, {})) == 3


def test_versions_whose_networks_saw_other_people_are_refused_by_both_names(home: Home, processed: Path) -> None:
    from model.face.ledger import ledger

    (home.root / "second").unlink()
    shutil.copytree(home.root / "first", home.root / "seen" / "second")
    people = ledger(train={"tests-00000"}, val=set())
    (home.root / "seen" / "manifest.json").write_text(json.dumps({"seen": {"adapter": people}}))
    rows = rows_of(
        home, "evaluate.people=4", "evaluate.seen_people=leave_out", versions=("first", "seen/second"), methods=()
    )
    with pytest.raises(UserError, match=r"first is evaluated on .* of 4 people, seen/second on .* of 3"):
        compare(rows, processed, home.root, home.root / "out", record=False)
    assert not (home.root / ".dynamicid" / "compare" / "evaluated").exists(), "before anything is drawn"


def test_sampling_is_varied_with_one_adapter_for_all(home: Home, processed: Path) -> None:
    rows = rows_of(home, methods=(), versions=("first", "second"))
    params = rows[0].params
    changed = {value: params.evaluate.model_copy(update={"guidance": value}) for value in (1.0, 3.0)}
    guided = [
        replace(rows[0], name=f"guidance={value}", params=params.model_copy(update={"evaluate": section}))
        for value, section in changed.items()
    ]
    found = compare(guided, processed, home.root, home.root / "out", record=False)
    assert found.figures.differences["guidance=3.0"]["clip_t"].value is not None
    assert len(list(home.root.glob(".dynamicid/compare/evaluated/*/metrics.json"))) == 2


def test_an_expression_and_a_pose_of_the_first_people_are_shown(home: Home, processed: Path) -> None:
    from pipelines.evaluation.evaluate import open_questions

    rows = rows_of(home, methods=())
    questions, _, _ = open_questions(rows[0].params, processed, Path("first"))
    shown = [questions.cells[number] for number in evaluate.shown_cells(questions)]
    assert [(cell.person, cell.asks_expression, cell.asks_pose) for cell in shown] == [
        (person, motion == 0, motion == 1) for person in range(2) for motion in range(2)
    ]
    assert len({(cell.expression, cell.pose) for cell in shown}) == 4

"""The whole protocol on random models: all figures exist, the page shows them, and a rerun gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.plan import cells_of, shared_cells
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.sweeps import SWEEPS
from pipelines.evaluation.variants import METRICS, MULTI_MEANINGS, PEOPLE_OF, TRUE_TOKENS, multi_metric
from tests.pipelines.evaluation.conftest import Evaluated, assert_close


def test_every_metric_and_every_comparison_is_there_with_an_interval(evaluated: Evaluated) -> None:
    document = json.loads(json.dumps(evaluated.document))
    assert set(document["model"]) == {name for name in METRICS if PEOPLE_OF.get(name) != 4}
    for variant in ("text_only", "without_gate", "without_imr", "true_tokens"):
        assert {"id_similarity", "expression_accuracy", "pose_accuracy", "prompt_accuracy", "clip_t", "kid"} <= set(
            document[variant]
        )
        # Of three people, not all have a photo with what is asked.
        counts = (2,) if variant == "true_tokens" else (2, 3)
        assert {multi_metric(name, people) for name in MULTI_MEANINGS for people in counts} <= set(document[variant])
    assert set(MULTI_MEANINGS) - {"count_accuracy"} <= set(document["ceiling"])
    assert {"multi_id_similarity", "multi_id_min", "leakage"} <= set(document["floor"])
    for end in ("ceiling", "floor"):
        assert {"id_similarity", "id_similarity_ref"} <= set(document[end])
    comparisons = document["comparisons"]
    assert set(comparisons) == {
        "model_minus_text_only",
        "model_minus_without_gate",
        "model_minus_without_imr",
        "true_tokens_minus_model",
    }
    tables = [document[name] for name in evaluated.result.metrics]
    tables += [*comparisons.values(), *document["normalised"].values()]
    for table in tables:
        for interval in table.values():
            assert set(interval) == {"value", "low", "high"}
            assert interval["low"] <= interval["value"] <= interval["high"]


@pytest.mark.parametrize("batch", [64, 5])
def test_what_is_not_drawn_changes_no_figure_of_what_is(
    evaluate: Callable[..., Evaluated], evaluated: Evaluated, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same noise for each cell, in whichever batch it is drawn; only a pixel's last bit depends on the batch."""
    few = evaluate("several_people.three=1", f"batch_size={batch}", variants=("model", "without_gate"))
    for variant in ("model", "without_gate"):
        for table in ("cells", "multi"):
            numbers, others = (getattr(one.result.plan, table)[variant] for one in (few, evaluated))
            assert set(numbers) == set(others)
            for cell, number in numbers.items():
                pictures = few.result.drawn[number].image, evaluated.result.drawn[others[cell]].image
                assert np.abs(np.subtract(*pictures, dtype=int)).max() <= 1
        assert_close(few.document[variant], evaluated.document[variant])
        assert_close(few.document["normalised"][variant], evaluated.document["normalised"][variant])
    assert_close(few.document["by_unit"], evaluated.document["by_unit"])
    assert set(few.document["comparisons"]) == {"model_minus_without_gate"}
    assert not {"text_only", "without_imr", "true_tokens"} & set(few.document)
    drawn, more = len(few.result.drawn), len(evaluated.result.drawn) - len(few.result.drawn)
    assert drawn < len(evaluated.result.drawn) * 0.8
    expected = f"evaluate: draws {drawn:,} pictures of model, without_gate, not the {more} of other variants"
    assert expected in capsys.readouterr().err
    assert "of the base model alone" not in few.page


def test_the_scale_puts_the_floor_at_nought_and_the_ceiling_at_one(evaluated: Evaluated) -> None:
    ends = [evaluated.document[name]["id_similarity"]["value"] for name in ("floor", "ceiling")]
    for variant in ("model", "text_only", "true_tokens"):
        similarity = evaluated.document[variant]["id_similarity"]["value"]
        expected = (similarity - ends[0]) / (ends[1] - ends[0])
        assert evaluated.document["normalised"][variant]["id_similarity"]["value"] == pytest.approx(expected, abs=1e-3)
    assert {"multi_id_similarity", "multi_id_min", "leakage", "multi_id_min_3"} <= set(
        evaluated.document["normalised"]["model"]
    )


def test_the_variants_differ_in_what_they_take_away(evaluated: Evaluated) -> None:
    result, drawn = evaluated.result, evaluated.result.drawn

    def picture(variant: str, number: int) -> np.ndarray:
        return drawn[result.plan.cells[variant][number]].image

    number = next(iter(result.plan.cells["true_tokens"]))
    for variant in ("text_only", "without_gate", "without_imr", "true_tokens"):
        assert not np.array_equal(picture("model", number), picture(variant, number))
    gates = {variant: drawn[result.plan.cells[variant][number]].gate is not None for variant in result.plan.cells}
    assert gates == {
        "model": True,
        "text_only": False,
        "without_gate": False,
        "without_imr": True,
        "true_tokens": True,
    }


def test_a_comparison_is_taken_on_the_cells_of_both_sides(evaluated: Evaluated) -> None:
    model, other = (evaluated.result.scores[name] for name in ("model", "without_gate"))
    both = set(model.cells.tolist()) & set(other.cells.tolist())
    gaps: dict[int, list[float]] = {}
    for number in both:
        person = evaluated.result.questions.cells[number].person
        values = [side.columns["clip_t"][side.cells.tolist().index(number)] for side in (model, other)]
        gaps.setdefault(person, []).append(values[0] - values[1])
    expected = np.mean([np.mean(values) for values in gaps.values()])
    found = evaluated.document["comparisons"]["model_minus_without_gate"]["clip_t"]["value"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_rerun_gives_the_same_bytes(evaluated: Evaluated, evaluate: Callable[..., Evaluated]) -> None:
    again = evaluate("several_people.three=1")
    assert json.dumps(again.document) == json.dumps(evaluated.document)
    assert again.page == evaluated.page
    assert not re.search(r"20\d\d-\d\d-\d\d", evaluated.page)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pictures of all batches that are drawn; a batch after `stop` others is interrupted."""
    drawn: list[int] = []
    draw = CellRenderer.draw_batch

    def draw_batch(renderer: CellRenderer, specs: Any) -> Any:
        if len(drawn) == STOP.get("after"):
            raise KeyboardInterrupt
        drawn.append(len(specs))
        return draw(renderer, specs)

    monkeypatch.setattr(CellRenderer, "draw_batch", draw_batch)
    monkeypatch.setitem(STOP, "after", None)
    return drawn


STOP: dict[str, int | None] = {}


def test_an_interrupted_evaluation_goes_on_without_drawing_again(
    evaluate: Callable[..., Evaluated], evaluated: Evaluated, counted: list[int], tmp_path: Path
) -> None:
    asked = ("several_people.three=1",)
    for after in (1, 3, 4):
        STOP["after"] = after
        with pytest.raises(KeyboardInterrupt):
            evaluate(*asked, work=tmp_path)
    # The disk had no room for the end of one, and another lost its last bytes.
    damaged = sorted(tmp_path.glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    STOP["after"] = None
    again = evaluate(*asked, work=tmp_path)
    assert json.dumps(again.document) == json.dumps(evaluated.document)
    assert again.page == evaluated.page
    pictures = len(evaluated.result.drawn)
    assert pictures <= sum(counted) <= pictures + max(counted)
    before = len(counted)
    assert evaluate(*asked, work=tmp_path).page == evaluated.page
    assert len(counted) == before, "all of it is there"


def test_a_sweep_draws_no_picture_of_the_model_again(evaluate: Callable[..., Evaluated], counted: list[int]) -> None:
    evaluated = evaluate("sweeps=true", "people=2", "variant_cells=2", "guidance=3.0")
    points = sum(map(len, SWEEPS.values()))
    shared = shared_cells(evaluated.result.questions, 2)
    same = sum((3.0 in SWEEPS["guidance"], 1.0 in SWEEPS["scale"], 0.3 in SWEEPS["threshold"]))
    assert same >= 2
    assert sum(counted) == len(evaluated.result.drawn) + (points - same) * len(shared)


def test_judges_that_cannot_judge_leave_no_number(evaluate: Callable[..., Evaluated]) -> None:
    bounds = {"recogniser_auc": 1.0, "expression_kappa": 1.0, "yaw_error": 0.0, "own_prompt": 1.0}
    strict = ", ".join(f"{name}: {value}" for name, value in bounds.items())
    evaluated = evaluate(
        "people=2", "variant_cells=2", f"judges.bounds={{faces_found: 0, photos: 1, {strict}}}", "sweeps=true"
    )
    document = json.loads(json.dumps(evaluated.document))
    measurable = {"face_rate", "gate_in_face", "count_accuracy"}
    tables = [document[name] for name in evaluated.result.metrics] + [*document["comparisons"].values()]
    tables += [*document["normalised"].values(), *(row for rows in document["sweeps"].values() for row in rows)]
    tables += document["groups"].values()
    for table in tables:
        for metric, figure in table.items():
            if isinstance(figure, dict) and metric not in measurable:
                assert figure["value"] is None, metric
                assert figure["reason"]
    assert "recogniser: auc" in document["model"]["id_similarity"]["reason"]
    assert document["model"]["face_rate"]["value"] == 1.0
    assert document["judges"]["recogniser"]["reason"].startswith("auc")
    assert set(document["by_unit"]) <= measurable
    assert document["confusion"]["model"] == {}
    page = evaluated.page
    assert "cannot judge: auc" in page
    assert page.count("not measurable") > 20
    assert re.search(r"similarity (not measurable|s −?\d)", page)[1] == "not measurable"  # type: ignore[index]
    assert 'alt="identity against prompt' not in page


def test_a_variant_of_one_picture_has_no_distance(
    evaluate: Callable[..., Evaluated], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_of_true_tokens(questions: EvaluationSet, variant: str, motions: int) -> list[int]:
        return cells_of(questions, variant, motions)[: 1 if variant == TRUE_TOKENS else None]

    monkeypatch.setattr("pipelines.evaluation.plan.cells_of", one_of_true_tokens)
    evaluated = evaluate()
    found = {"value": None, "reason": "1 picture drawn, a distance needs two"}
    assert evaluated.document[TRUE_TOKENS]["kid"] == found
    assert evaluated.document["model"]["kid"]["value"] is not None


def test_a_shipped_adapter_is_drawn_beside_the_one_just_trained(evaluate: Callable[..., Evaluated]) -> None:
    evaluated = evaluate("people=2", "variant_cells=2", ship=True)
    result, document = evaluated.result, evaluated.document
    assert set(result.plan.cells["shipped"]) == set(result.plan.cells["without_gate"])
    # Both names are one adapter, so pictures differ only by rounding in batches of another size.
    plan, drawn = result.plan, result.drawn
    both = [(number, plan.cells["model"][cell]) for cell, number in plan.cells["shipped"].items()]
    both += [(number, plan.multi["model"][cell]) for cell, number in plan.multi["shipped"].items()]
    for shipped, model in both:
        assert shipped != model
        assert np.abs(drawn[shipped].image.astype(int) - drawn[model].image).max() <= 2
    assert document["comparisons"]["shipped_minus_model"]["id_similarity"]["value"] == pytest.approx(0, abs=0.01)
    assert document["shipped"]["multi_id_min"]["value"] == pytest.approx(
        document["model"]["multi_id_min"]["value"], abs=0.01
    )
    glance = evaluated.page.split('<div class="glance">')[1].split("<h2>")[0]
    assert glance.count("<figure") == 2 * 4
    assert glance.index("base model") < glance.index("just trained") < glance.index("shipped")

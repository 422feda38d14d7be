from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.params import load_params
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.photos import PhotoRecord
from pipelines.evaluation.plan import TokenTable, plan_drawing, shared_cells

Ask = Callable[..., EvaluationSet]


def some_tokens(questions: EvaluationSet) -> TokenTable:
    rng = np.random.default_rng(0)

    def token() -> np.ndarray:
        return rng.normal(size=(4, 8)).astype(np.float32)

    people = range(len(questions.people))
    return TokenTable(
        own={person: token() for person in people},
        asked={(person, e, p): token() for person in people for e in EXPRESSIONS for p in POSES},
        true={number: token() for number, cell in enumerate(questions.cells) if cell.true_photo},
    )


def test_the_demo_draws_about_four_hundred_pictures(ask: Ask, project: Path) -> None:
    tiny = load_params(project / "profiles" / "tiny.yaml").evaluate
    questions = ask(tiny.people, **tiny.model_dump())
    plan = plan_drawing(questions, some_tokens(questions), tiny.variant_cells)
    assert 330 <= len(plan.specs) <= 420


def test_every_variant_starts_from_the_model_s_noise_and_prompt(ask: Ask) -> None:
    questions = ask()
    plan = plan_drawing(questions, some_tokens(questions), 5)
    for variant, cells in plan.cells.items():
        for number, picture in cells.items():
            model, other = plan.specs[plan.cells["model"][number]], plan.specs[picture]
            assert other.noise == model.noise
            if variant == "text_only":
                assert other.tokens is None
                assert other.prompt == f"{model.prompt}, {questions.cells[number].face_prompt}"
            else:
                assert other.prompt == model.prompt
                assert other.gate == (variant != "without_gate")
                same = np.array_equal(other.tokens, model.tokens)
                assert same == (variant in ("model", "without_gate"))


def test_true_tokens_are_drawn_even_where_no_shared_cell_has_a_photo(ask: Ask) -> None:
    questions = ask()
    shared = set(shared_cells(questions, 2))
    with_photo = [number for number, cell in enumerate(questions.cells) if cell.graded and cell.true_photo]
    assert set(with_photo) - shared
    cells = tuple(
        replace(cell, true_photo=None) if number in shared else cell for number, cell in enumerate(questions.cells)
    )
    bare = replace(questions, cells=cells)
    plan = plan_drawing(bare, some_tokens(bare), 2)
    assert list(plan.cells["true_tokens"]) == [number for number in with_photo if number not in shared]


def test_pictures_that_would_be_the_same_are_drawn_once(ask: Ask) -> None:
    questions = ask()
    plan = plan_drawing(questions, some_tokens(questions), 5)
    without = plan.cells["without_imr"]
    assert len(without) == 4 * 11
    assert len(set(without.values())) == 4 * 2, "two prompts"
    assert len({spec.key for spec in plan.specs}) == len(plan.specs)


def test_the_shared_cells_cover_every_motion_about_equally(ask: Ask) -> None:
    questions = ask(14, people=14)
    cells = [questions.cells[number] for number in shared_cells(questions, 5)]
    motions = Counter((cell.expression, cell.pose) for cell in cells)
    assert len(motions) == 11
    # "neutral, front" is counted both among expressions and among poses.
    assert max(count for motion, count in motions.items() if motion != ("neutral", "front")) <= 6
    assert min(motions.values()) >= 5


def test_true_tokens_are_drawn_only_where_a_real_photo_shows_what_is_asked(
    ask: Ask, records: Callable[..., list[PhotoRecord]]
) -> None:
    photos = [photo for photo in records() if photo.expression != "angry"]
    questions = ask(photos)
    plan = plan_drawing(questions, some_tokens(questions), 11)
    asked = {questions.cells[number].expression for number in plan.cells["true_tokens"]}
    assert asked == set(EXPRESSIONS) - {"angry"}
    assert {questions.cells[number].expression for number in plan.cells["without_gate"]} == set(EXPRESSIONS)


def test_two_people_are_drawn_into_boxes_side_by_side(ask: Ask) -> None:
    questions = ask(pairs=6)
    plan = plan_drawing(questions, some_tokens(questions), 3)
    spec = plan.specs[plan.pairs["model"][0]]
    assert spec.tokens is not None
    assert spec.tokens.shape == (8, 8)
    assert spec.boxes is not None
    (top, left, bottom, right), other = spec.boxes
    assert 0 <= left < right <= 0.5 <= other[1] < other[3] <= 1
    assert (top, bottom) == (other[0], other[2])
    assert all(pair.people[0] != pair.people[1] for pair in questions.pairs)
    assert len({frozenset(pair.people) for pair in questions.pairs[:4]}) == 4

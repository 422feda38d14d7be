from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES, parse
from model.face.people_prompts import people_of
from pipelines.core.params import load_params
from pipelines.core.sections.evaluation import SeveralPeople
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
        multi={photo: token() for cell in questions.multi_cells for photo in cell.true_photos if photo},
    )


def test_the_demo_draws_about_four_hundred_and_fifty_pictures(ask: Ask, project: Path) -> None:
    tiny = load_params(project / "profiles" / "tiny.yaml").evaluate
    questions = ask(tiny.people, **{name: getattr(tiny, name) for name in type(tiny).model_fields})
    plan = plan_drawing(questions, some_tokens(questions), tiny.variant_cells)
    assert 400 <= len(plan.specs) <= 460


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


def test_everybody_is_drawn_into_a_box_of_their_own_from_left_to_right(ask: Ask) -> None:
    questions = ask(5, people=5, several_people=SeveralPeople(two=3, three=3, four=3))
    plan = plan_drawing(questions, some_tokens(questions), 3)
    for number, cell in enumerate(questions.multi_cells):
        spec, people = plan.specs[plan.multi["model"][number]], len(cell.people)
        assert spec.people == people
        assert spec.tokens is not None
        assert spec.tokens.shape == (4 * people, 8)
        assert spec.boxes == cell.boxes
        edges = [edge for _, left, _, right in cell.boxes for edge in (left, right)]
        assert edges == sorted(edges)
        assert 0 < edges[0] < edges[-1] < 1
        for place, (_, left, _, right) in enumerate(cell.boxes):
            assert place / people < left < right < (place + 1) / people


def test_every_variant_draws_pictures_of_several_people_from_the_same_noise(ask: Ask) -> None:
    questions = ask(several_people=SeveralPeople(two=6, three=2))
    tokens = some_tokens(questions)
    plan = plan_drawing(questions, tokens, 3)
    for number, cell in enumerate(questions.multi_cells):
        model = plan.specs[plan.multi["model"][number]]
        for variant in ("text_only", "without_gate", "without_imr", "true_tokens"):
            if variant == "true_tokens" and cell.photos is None:
                assert number not in plan.multi[variant]
                continue
            other = plan.specs[plan.multi[variant][number]]
            assert (other.noise, other.people) == (model.noise, model.people)
            if variant == "text_only":
                assert (other.tokens, other.boxes) == (None, None)
                assert all(text in other.prompt for text in cell.face_prompts)
            else:
                assert (other.prompt, other.boxes) == (model.prompt, model.boxes)
                assert other.gate == (variant != "without_gate")
                assert np.array_equal(other.tokens, model.tokens) == (variant == "without_gate")
        if cell.photos is not None:
            true = plan.specs[plan.multi["true_tokens"][number]].tokens
            assert np.array_equal(true, np.concatenate([tokens.multi[photo] for photo in cell.photos]))
    # A prompt that names people by place states the face prompt of each behind the person.
    three = plan.specs[plan.multi["text_only"][questions.multi_of(3)[0]]].prompt
    assert [parse(text).expression for text in people_of(three)] == list(questions.multi_cells[-2].expressions)


def test_in_windows_everybody_has_a_prompt_instead_of_a_box(ask: Ask) -> None:
    questions = ask(5, people=5, several_people=SeveralPeople(two=6, three=3, four=3))
    tokens = some_tokens(questions)
    regions, windows = (plan_drawing(questions, replace(tokens, layout=layout), 3) for layout in ("regions", "windows"))
    for number, cell in enumerate(questions.multi_cells):
        before, model = (plan.specs[plan.multi["model"][number]] for plan in (regions, windows))
        assert (model.boxes, model.noise, model.people) == (None, before.noise, before.people)
        assert np.array_equal(model.tokens, before.tokens)
        assert model.windows is not None
        assert len(model.windows) == len(cell.people)
        assert all(text.startswith("a photo of a person wearing a") for text in model.windows)
        alone = windows.specs[windows.multi["text_only"][number]]
        assert alone.tokens is None
        assert alone.windows == tuple(", ".join(pair) for pair in zip(model.windows, cell.face_prompts, strict=True))
    single = windows.cells["model"][0]
    assert windows.specs[single].windows is None


def test_everybody_in_a_picture_is_asked_something_else(ask: Ask) -> None:
    questions = ask(9, people=9, several_people=SeveralPeople(two=35, three=35, four=35))
    for count in (2, 3, 4):
        cells = [questions.multi_cells[number] for number in questions.multi_of(count)]
        assert len(cells) == 35
        for cell in cells:
            assert len(set(cell.people)) == len(set(cell.expressions)) == len(set(cell.poses)) == count
            assert all(
                photo is None or photo.startswith(f"{who}-")
                for who, photo in zip(
                    (questions.people[person].identity[1:] for person in cell.people), cell.true_photos, strict=True
                )
            )
        for place in range(count):
            assert set(Counter(cell.expressions[place] for cell in cells).values()) == {5}
            assert {cell.poses[place] for cell in cells} == set(POSES)
        turns = Counter(person for cell in cells for person in cell.people)
        assert max(turns.values()) - min(turns.values()) <= count + 1
    # Poses are those of which there are photos, where they can be.
    assert sum(cell.photos is not None for cell in questions.multi_cells) > 90

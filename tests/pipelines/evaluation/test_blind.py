"""Sheets are shuffled by seed and drawn as in the evaluation; a score counts the right answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.face.face_prompts import EXPRESSIONS
from pipelines.cli import app
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.sections.data import Rights
from pipelines.core.sections.evaluation import SeveralPeople
from pipelines.evaluation.blind import (
    PAIR_EXPRESSIONS,
    PAIRS,
    choose_cells,
    make_sheets,
    pair_sheets,
    score,
    write_sheets,
)
from pipelines.evaluation.evaluation_set import EvaluationSet, build_evaluation_set
from pipelines.evaluation.photos import held_out_records, read_photos
from pipelines.evaluation.picture_store import DrawnPicture
from pipelines.evaluation.plan import PictureSpec, TokenTable
from pipelines.evaluation.prompts import load_prompts
from pipelines.evaluation.sampling import CellRenderer

Ask = Callable[..., EvaluationSet]


def test_every_person_once_and_every_expression_as_often(ask: Ask) -> None:
    questions = ask(4)
    matched, asked = choose_cells(questions, people=3, each=2, seed=0)
    assert len({questions.cells[number].person for number in matched}) == 3
    assert Counter(questions.cells[number].expression for number in asked) == dict.fromkeys(EXPRESSIONS, 2)
    assert choose_cells(questions, people=3, each=2, seed=0) == (matched, asked)
    assert choose_cells(questions, people=3, each=2, seed=1) != (matched, asked)
    with pytest.raises(UserError, match=r"takes 4 of those held out; --people 4 at most, or a larger evaluate\.people"):
        choose_cells(questions, people=5, each=2, seed=0)


class IndexRenderer:
    """Writes the indices of person and expression into the first two channels of every pixel."""

    def tokens(self, questions: EvaluationSet, _: object) -> TokenTable:
        motions = {(cell.person, cell.expression, cell.pose) for cell in questions.cells}
        asked = {(who, what, pose): np.array([[who, EXPRESSIONS.index(what)]]) for who, what, pose in motions}
        return TokenTable(own={}, asked=asked, true={}, multi={})

    def draw(self, specs: list[PictureSpec]) -> list[DrawnPicture]:
        return [
            DrawnPicture(np.broadcast_to(np.array([*spec.tokens[0], 0], np.uint8), (8, 8, 3)), None)
            for spec in specs
            if spec.tokens is not None
        ]


@pytest.mark.parametrize("seed", range(4))
def test_the_key_names_what_was_drawn(ask: Ask, seed: int) -> None:
    questions = ask(4)
    photos = {
        person.reference: SimpleNamespace(image=np.full((8, 8, 3), number, np.uint8))
        for number, person in enumerate(questions.people)
    }
    sheets = make_sheets(questions, photos, IndexRenderer(), people=4, each=2, seed=seed)  # type: ignore[arg-type]
    (_, references, letters), (_, drawn, numbers) = sheets["matching.png"].rows
    shown = {letter: int(picture[0, 0, 0]) for letter, picture in zip(letters, references, strict=True)}
    who = {number: int(picture[0, 0, 0]) for number, picture in zip(numbers, drawn, strict=True)}
    assert {number: shown[letter] for number, letter in sheets["matching.png"].answers.items()} == who
    assert len(set(who.values())) == 4
    ((_, faces, names),) = sheets["expressions.png"].rows
    read = {name: EXPRESSIONS[int(picture[0, 0, 1])] for name, picture in zip(names, faces, strict=True)}
    assert sheets["expressions.png"].answers == read
    assert Counter(read.values()) == dict.fromkeys(EXPRESSIONS, 2)


def test_the_key_of_pairs_names_who_stands_where_and_what_they_show(ask: Ask, tmp_path: Path) -> None:
    questions = ask(5, people=5, several_people=SeveralPeople(two=8))
    photos = {
        person.reference: SimpleNamespace(image=np.full((8, 8, 3), n, np.uint8))
        for n, person in enumerate(questions.people)
    }

    class Renderer(IndexRenderer):
        def tokens(self, questions: EvaluationSet, _: object) -> TokenTable:
            asked = {
                key: np.array([[key[0], EXPRESSIONS.index(key[1])]])
                for cell in questions.multi_cells
                for key in zip(cell.people, cell.expressions, cell.poses, strict=True)
            }
            return TokenTable(own={}, asked=asked, true={}, multi={}, layout="windows")

        def draw(self, specs: list[PictureSpec]) -> list[DrawnPicture]:
            return [DrawnPicture(np.repeat([np.repeat([*s.tokens.ravel()], 4)], 4, 0)[..., None], None) for s in specs]

    sheets = pair_sheets(questions, photos, Renderer(), pairs=6, seed=3)
    who, shows = sheets[PAIRS], sheets[PAIR_EXPRESSIONS]
    (_, references, letters), (_, pictures, labels) = who.rows
    owner = {letter: int(image[0, 0, 0]) for letter, image in zip(letters, references, strict=True)}
    assert labels[:2] == ["1 and 2", "3 and 4"]
    for place, picture in enumerate(pictures):
        for side, number in enumerate((2 * place + 1, 2 * place + 2)):
            person, expression = picture[0, 8 * side, 0], picture[0, 8 * side + 4, 0]
            assert owner[who.answers[str(number)]] == person
            assert shows.answers[str(number)] == EXPRESSIONS[expression]
    with pytest.raises(UserError, match=r"9 pictures of two people: the evaluation asks for 8; --pairs 8"):
        pair_sheets(questions, photos, Renderer(), pairs=9, seed=3)


def test_a_sheet_larger_than_the_cells_is_refused(ask: Ask) -> None:
    questions = ask(2)
    with pytest.raises(
        UserError, match=r"9 faces of every expression: .* only for (\d) neutral faces? .*; --each \1 at most"
    ):
        choose_cells(questions, people=2, each=9, seed=0)


def test_sheets_are_pictures_and_the_key_scores_full_marks(
    *, processed: Path, adapter_folder: tuple[Path, Path, Path], params: Params, tmp_path: Path
) -> None:
    from model.inference.pipeline import DynamicIDPipeline

    found = held_out_records(processed, Rights())
    questions = build_evaluation_set(found, params.evaluate, load_prompts())
    photos = read_photos(processed, found, questions.photo_ids()).photos
    renderer = CellRenderer(DynamicIDPipeline.from_folders(*adapter_folder), params.evaluate, 64)
    sheets = make_sheets(questions, photos, renderer, people=3, each=1, seed=2)
    write_sheets(sheets, tmp_path / "sheets", {"seed": 2})
    assert json.loads((tmp_path / "sheets" / "reading.json").read_text()) == {"seed": 2}
    key = json.loads((tmp_path / "sheets" / "key.json").read_text())
    assert sorted(key["matching"].values()) == ["A", "B", "C"]
    assert Counter(key["expressions"].values()) == dict.fromkeys(EXPRESSIONS, 1)
    for name in ("matching", "expressions"):
        with Image.open(tmp_path / "sheets" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("RGB")).std() > 10

    (tmp_path / "answers.json").write_text(json.dumps(key))
    done = CliRunner().invoke(app, ["blind", "score", str(tmp_path / "sheets"), str(tmp_path / "answers.json")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["matching"] == {"right": 3, "of": 3, "share": 1.0}


def test_a_score_counts_right_answers_and_refuses_gaps() -> None:
    key = {"matching": {"1": "B", "2": "A"}, "expressions": {"1": "sad"}}
    found = score(key, {"matching": {"1": "b", "2": "C"}, "expressions": {"1": " Sad"}})
    assert found["matching"] == {"right": 1, "of": 2, "share": 0.5}
    assert found["expressions"]["share"] == 1
    with pytest.raises(UserError, match="answers to matching: 2 missing"):
        score(key, {"matching": {"1": "B"}, "expressions": {"1": "sad"}})
    for given in ([], {"matching": 3}, {"matching": ["B", "A"]}):
        with pytest.raises(UserError, match="answers to matching: 1, 2 missing"):
            score(key, given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"answers to expressions: sadd; expected neutral, "):
        score(key, {"matching": {"1": "B", "2": "A"}, "expressions": {"1": "sadd"}})
    assert score(key, {"matching": {"1": "", "2": ""}, "expressions": {"1": ""}})["expressions"]["right"] == 0

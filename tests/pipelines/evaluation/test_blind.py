"""Sheets are shuffled by their seed and drawn as the evaluation draws; a score counts what is right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.face_prompts import EXPRESSIONS
from pipelines.cli import app
from pipelines.errors import UserError
from pipelines.evaluation.blind import choose_cells, make_sheets, score, write_sheets
from pipelines.evaluation.evaluation_set import PhotoRecord, build_evaluation_set
from pipelines.evaluation.photos import held_out_records, read_photos
from pipelines.evaluation.prompts import load_prompts
from pipelines.evaluation.sampling import Painter
from pipelines.params import Params


def test_every_person_once_and_every_expression_as_often(
    records: Callable[..., list[PhotoRecord]], params: Params
) -> None:
    questions = build_evaluation_set(records(4), params.evaluate, load_prompts())
    matched, asked = choose_cells(questions, people=3, each=2, seed=0)
    assert len({questions.cells[number].person for number in matched}) == 3
    assert Counter(questions.cells[number].expression for number in asked) == dict.fromkeys(EXPRESSIONS, 2)
    assert choose_cells(questions, people=3, each=2, seed=0) == (matched, asked)
    assert choose_cells(questions, people=3, each=2, seed=1) != (matched, asked)
    with pytest.raises(UserError, match="only 4 are held out"):
        choose_cells(questions, people=5, each=2, seed=0)


def test_the_key_names_what_was_drawn(
    *, processed: Path, adapter_folder: tuple[Path, Path, Path], params: Params, tmp_path: Path
) -> None:
    from model.pipeline import DynamicIDPipeline

    found = held_out_records(processed)
    questions = build_evaluation_set(found, params.evaluate, load_prompts())
    photos = read_photos(processed, found, questions.photo_ids()).photos
    painter = Painter(DynamicIDPipeline.from_folders(*adapter_folder), params.evaluate, 64)
    sheets = make_sheets(questions, photos, painter, people=3, each=1, seed=2)
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


def test_a_score_counts_what_is_right_and_misses_nothing() -> None:
    key = {"matching": {"1": "B", "2": "A"}, "expressions": {"1": "sad"}}
    found = score(key, {"matching": {"1": "b", "2": "C"}, "expressions": {"1": " Sad"}})
    assert found["matching"] == {"right": 1, "of": 2, "share": 0.5}
    assert found["expressions"]["share"] == 1
    with pytest.raises(UserError, match="answers to matching: 2 missing"):
        score(key, {"matching": {"1": "B"}, "expressions": {"1": "sad"}})
    for given in ([], {"matching": 3}, {"matching": ["B", "A"]}):
        with pytest.raises(UserError, match="answers to matching: 1, 2 missing"):
            score(key, given)  # type: ignore[arg-type]

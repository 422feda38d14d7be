"""A recogniser is calibrated on known people: the chosen point, its error rates, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import PROCESSED_SCHEMA
from pipelines.data.curation import calibrate
from pipelines.data.curation.calibrate import NUMBERS, PAGE, Inputs, Outputs, run
from pipelines.data.faces.calibration import FILE, read_own, recogniser_of
from pipelines.data.faces.pairs import RATE, accepted, count_pairs, share
from tests.pipelines.photos import accepted_row, write_shards

PEOPLE, EACH = 60, 6


def vectors(spread: float, people: int = PEOPLE, each: int = EACH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    centres = np.repeat(rng.normal(size=(people, 512)), each, axis=0)
    found = centres + spread * rng.normal(size=centres.shape)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(people), each)


def processed(folder: Path, spread: float, people: int = PEOPLE, each: int = EACH) -> Path:
    embeddings, person = vectors(spread, people, each)
    rows = [
        accepted_row(number, identity=f"p{who:03d}", n_faces=1, embedding=vector.tolist())
        for number, (vector, who) in enumerate(zip(embeddings, person, strict=True))
    ]
    return write_shards(folder, PROCESSED_SCHEMA, [rows])


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_check_made_by", lambda *_: None)


def test_all_pairs_are_counted_once() -> None:
    embeddings, person = vectors(0.5, 7, 3)
    pairs = count_pairs(embeddings, person)
    assert (pairs.same.sum(), pairs.other.sum()) == (7 * 3, 21 * 20 // 2 - 7 * 3)
    cosines = (embeddings @ embeddings.T)[np.triu_indices(21, 1)]
    counts = accepted(embeddings, person, 0.5)
    assert (counts.same_accepted + counts.other_accepted).sum() == 2 * (cosines >= 0.5).sum()
    assert (counts.same.sum(), counts.other.sum()) == (7 * 3 * 2, 2 * pairs.other.sum())


def test_the_threshold_is_where_one_pair_of_two_people_in_ten_thousand_is_accepted() -> None:
    embeddings, person = vectors(0.6, 400, 5)
    similarity = count_pairs(embeddings, person).threshold
    counts = accepted(embeddings, person, similarity)
    value, low, high = share(counts.other_accepted, counts.other)
    assert low <= value <= high
    assert 0.2 * RATE < value < 3 * RATE
    none = share(np.zeros(5), np.full(5, 100))
    assert none == (0, 0, 3 / 500)


def test_thresholds_are_measured_written_and_found_by_the_recogniser(params: Params, tmp_path: Path) -> None:
    faces = processed(tmp_path / "processed", 0.6)
    out = Outputs(tmp_path / "report", tmp_path)
    report = run(params, Inputs(faces), out)
    found = recogniser_of(params.preprocess, tmp_path)
    assert found.fingerprint == report.recogniser
    known = found.thresholds()
    assert known == read_own(tmp_path).recognisers[report.recogniser]
    assert 0.1 < known.similarity < known.same < known.copies < 1
    assert known.doubtful is not None
    assert 0 < known.doubtful <= known.similarity
    assert known.same == pytest.approx(1 / 1.36, abs=0.02)
    assert known.measured is not None
    assert (known.measured.people, known.measured.photos) == (PEOPLE, PEOPLE * EACH)
    assert known.measured.true_accepts.low > 0.99
    assert json.loads((tmp_path / "report" / NUMBERS).read_text())["similarity"] == known.similarity
    page = (tmp_path / "report" / PAGE).read_text()
    assert "<svg" in page
    assert "p001" not in page
    first = (tmp_path / FILE).read_bytes(), page
    run(params, Inputs(faces), out)
    assert ((tmp_path / FILE).read_bytes(), (tmp_path / "report" / PAGE).read_text()) == first


@pytest.mark.parametrize(
    ("drawn", "error", "message"),
    [
        ((0.6, 12, 4), UserError, "12 known people with two photos and more, 1,056 pairs .* needs 20 and 30,000"),
        ((0.6, 400, 1), UserError, "0 known people with two photos and more, 79,800 pairs"),
        (
            (5.0, 60, 6),
            StageFailed,
            r"the recogniser tiny_faces \(c015bfc8969a\) cannot tell these 60 people apart: .*0\.0",
        ),
    ],
)
def test_too_few_people_and_a_network_that_cannot_tell_them_apart_are_refused(
    drawn: tuple[float, int, int], error: type[Exception], message: str, params: Params, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(params, Inputs(processed(tmp_path / "rows", *drawn)), Outputs(tmp_path / "report", tmp_path))
    assert not (tmp_path / FILE).exists()
    assert not (tmp_path / "report").exists()

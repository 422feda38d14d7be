"""Processed rows get the same verdict and pages from both engines, whatever is wrong with them."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import REJECTED
from pipelines.data.spark import spark_context
from pipelines.data.validation import on_spark, processed_rows
from pipelines.data.validation.processed_frame import empty_frame, processed_frame, spark_frame
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.stages.validate_processed import Inputs, Outputs, run
from tests.pipelines.data.validation.pages import text_of
from tests.pipelines.data.validation.test_processed_frame import DAMAGES, good_rows, write
from tests.pipelines.photos import Row


def on(engine: str, params: Params) -> Params:
    return params.model_copy(update={"validate_": params.validate_.model_copy(update={"engine": engine})})


def faulty_rows(seed: int) -> list[Row]:
    """Rows with every fault at once, each in some of them; two people have another name in another split."""
    chance, rows = random.Random(seed), good_rows(people=60)
    unit = np.eye(512, dtype=np.float32)
    faults: dict[str, list[Any]] = {
        "identity": [None, "p5", "p6"],
        "split": [None, "test", "val", "elsewhere"],
        "status": [None, "maybe", REJECTED],
        "reason": ["no_face", "duplicate", "ugly"],
        "embedding": [None, np.full(512, 0.1), np.full(512, np.nan), unit[0][:100]],
        "landmarks": [None, np.full(136, np.nan), np.full(135, 1.0)],
        "keypoints": [None, np.full(10, np.inf)],
        "bbox": [None, [0.0, 0.0, 65.0, 10.0], [9.0, 0.0, 9.0, 10.0], [np.nan] * 4],
        "yaw": [None, 400.0, np.nan, -np.inf],
        "pitch": [None, -400.0],
        "roll": [None, np.inf],
        "det_score": [None, np.nan, 0.1, 0.9, 0.95],
        "expression": [None, "bored"],
        "pose": [None, "sideways"],
        "pose_source": ["a network"],
        "prompt": [None],
        "face_prompt": [None],
        "image_id": [None, "a" * 64],
        "file_name": [None, "p1/0.jpg"],
    }
    for number, row in enumerate(rows[:-1]):
        row["embedding"] = unit[number // 3 % 58 + 1] + 0
        for name, wrong in faults.items():
            if chance.random() < 0.05:
                row[name] = chance.choice(wrong)
    rows[4].update({name: rows[3][name] for name in ("image_id", "file_name")})
    return rows


def unaccepted(reason: str) -> list[Row]:
    return [row | {"identity": None, "status": REJECTED, "reason": reason, "image": None} for row in good_rows(2)]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["good", "faulty", "none accepted", "all repeated"])
def test_both_engines_give_the_same_verdict_and_pages(
    kind: str, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processed_rows, "_BATCH", 32)
    rows = {
        "good": good_rows,
        "faulty": lambda: faulty_rows(0),
        "none accepted": lambda: unaccepted("no_face"),
        "all repeated": lambda: unaccepted("duplicate"),
    }[kind]()
    processed, own = write(tmp_path / "processed [1] {a}", rows), tmp_path / "expectations"
    own.mkdir()
    (own / "team.yaml").write_text(
        "validate_processed:\n  team_blurred:\n    expectation: ExpectColumnValuesToNotBeInSet\n    column: reason\n"
        "    protects: photos\n    arguments: {value_set: [no_face]}\n"
    )
    found = {}
    for engine in ("pandas", "spark"):
        docs = tmp_path / f"{engine}_docs"
        with contextlib.nullcontext() if kind == "good" else pytest.raises(StageFailed):
            run(on(engine, params), Inputs(processed, None, own), Outputs(tmp_path / engine, docs))
        verdict = (tmp_path / engine / "verdict.json").read_text()
        found[engine] = (verdict, text_of(docs), capsys.readouterr().err.replace(engine, ""))
    assert found["pandas"][0] == found["spark"][0]
    assert found["pandas"][1] == found["spark"][1]
    assert found["pandas"][2] == found["spark"][2]
    assert ("seem to be one person" in found["spark"][2]) is (kind == "faulty")
    if kind == "faulty":
        assert {name for _, name in DAMAGES} <= set(json.loads(found["spark"][0])["failed"])


@pytest.mark.nightly
def test_each_damage_breaks_its_expectation_on_spark_as_on_pandas(params: Params, tmp_path: Path) -> None:
    with spark_context(params.preprocess.master, "test", params.preprocess.spark) as context:
        for number, (damage, name) in enumerate(DAMAGES):
            rows = good_rows()
            damage(rows)
            processed = write(tmp_path / str(number), rows)
            checks = [check for check in processed_checks(params.validate_processed) if check.name == name]
            frames = processed_frame(processed), spark_frame(context, processed)
            one, other = (run_checks("validate_processed", checks, frame, None) for frame in frames)
            assert [item.name for item in other.failures()] == [name]
            assert one == other


@pytest.mark.nightly
def test_the_engine_is_chosen_by_the_number_of_rows(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processed, own = write(tmp_path / "processed", good_rows()), tmp_path / "expectations"
    own.mkdir()
    (own / "team.py").write_text("def checks(stage, frame):\n    return []\n")
    rows = Inputs(processed, None, own)
    assert run(on("auto", params), rows, Outputs(tmp_path / "report")).success
    monkeypatch.setattr(on_spark, "ROWS_IN_MEMORY", 24)
    with pytest.raises(UserError, match=r"team.py: needs a frame of pandas.*validate.engine"):
        run(on("auto", params), rows, Outputs(tmp_path / "report"))
    assert run(on("pandas", params), rows, Outputs(tmp_path / "report")).success


def test_the_frame_of_no_rows_has_the_columns_of_all_rows(tmp_path: Path) -> None:
    frame = processed_frame(write(tmp_path / "processed", good_rows()))
    assert list(empty_frame().columns) == list(frame.columns)
    assert len(empty_frame()) == 0


def test_rows_are_read_in_pieces_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processed = write(tmp_path / "processed", good_rows(people=20))
    whole = processed_frame(processed, ["p3"])
    monkeypatch.setattr(processed_rows, "_BATCH", 1)
    assert processed_frame(processed, ["p3"]).equals(whole)
    assert whole.loc[whole["other_names"] == 1, "identity"].unique().tolist() == ["p3"]

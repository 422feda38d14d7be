"""One person under two names in different splits is found, and people who are two are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_networks import real_networks
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params, load_params
from pipelines.core.sections.data import Threshold
from pipelines.data.faces.calibration import FILE
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder
from pipelines.data.validation import one_person
from pipelines.data.validation.one_person import find_twins
from pipelines.stages.validate_processed import Inputs, Outputs, run
from tests.pipelines.data.validation.test_processed_frame import good_rows, write
from tests.pipelines.photos import Row, accepted_row

SPREAD = 0.6  # Two photos of one person have a cosine of about 0.74.


def rows_of_people(people: int = 12, each: int = 4) -> list[Row]:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(people, 512))
    rows = good_rows(people, each)[:-1]
    for number, row in enumerate(rows):
        vector = centres[number // each] + SPREAD * rng.normal(size=512)
        row["embedding"] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return rows


def plant(rows: list[Row], person: str, name: str, each: int) -> None:
    """Give half of the photos of a person of split train to the name `name` in split val."""
    for row in [row for row in rows if row["identity"] == person][:each]:
        row.update(identity=name, split="val")


def test_nobody_is_found_where_all_are_different(params: Params, tmp_path: Path) -> None:
    assert find_twins(write(tmp_path, rows_of_people()), params) == []


@pytest.mark.parametrize("block", [65_536, 3])
def test_a_planted_person_fails_with_names_photos_and_the_command(
    block: int, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(one_person, "_THERE", block)
    rows = rows_of_people()
    plant(rows, "p7", "p 7", 2)
    processed = write(tmp_path / "processed", rows)
    (pair,) = find_twins(processed, params)
    assert (pair.names, pair.splits, pair.photos) == (("p 7", "p7"), ("val", "train"), (2, 2))
    assert pair.similarity == pytest.approx(0.74, abs=0.05)
    with pytest.raises(StageFailed, match=r"one_person_under_two_names .*validate_processed\.similarity"):
        run(params, Inputs(processed), Outputs(tmp_path / "report"))
    printed = capsys.readouterr().err
    assert "'p 7' (val, 2 photos) and 'p7' (train, 2 photos) seem to be one person" in printed
    assert "`dynamicid dataset merge p7 'p 7'`" in printed
    assert "p7/3.jpg" in printed
    # The verdict is a file that goes further than a log: it names nobody.
    assert "p 7" not in (tmp_path / "report" / "verdict.json").read_text()


def test_the_bound_rises_with_the_number_of_people_and_falls_with_photos(params: Params, tmp_path: Path) -> None:
    several = rows_of_people(40, 4)
    plant(several, "p30", "again", 2)
    (of_two,) = find_twins(write(tmp_path / "two", several), params)
    alone = rows_of_people(40, 4)
    plant(alone, "p30", "again", 1)
    (of_one,) = find_twins(write(tmp_path / "one", alone), params) or [None]
    assert of_one is None or of_one.bound >= of_two.bound >= 0.68


def test_an_unknown_recogniser_is_asked_only_where_people_can_be_compared(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_people()
    pack = tmp_path / "models" / "unknown"
    pack.mkdir(parents=True)
    shipped = Path("model/foundation/weights/insightface/models/tiny_faces/rec.onnx")
    root = Path(__file__).resolve().parents[4]
    (pack / "rec.onnx").write_bytes((root / shipped).read_bytes() + b"\0")
    update = {"insightface_root": str(tmp_path), "insightface_name": "unknown"}
    other = params.model_copy(update={"preprocess": params.preprocess.model_copy(update=update)})
    monkeypatch.setattr("pipelines.data.faces.calibration.recogniser_file", lambda folder: folder / "rec.onnx")
    with pytest.raises(UserError, match="`dynamicid calibrate DIR`"):
        find_twins(write(tmp_path / "several", rows), other)
    alone = [row | {"split": "train"} for row in rows]
    assert find_twins(write(tmp_path / "alone", alone), other) == []
    chosen = params.validate_processed.model_copy(update={"similarity": Threshold(value=0.6, recogniser="0" * 12)})
    with pytest.raises(UserError, match=r"validate_processed\.similarity: 0\.6 was chosen for the recogniser 0{12}"):
        find_twins(tmp_path / "several", params.model_copy(update={"validate_processed": chosen}))
    assert not (tmp_path / FILE).exists()


@pytest.mark.realdata
def test_a_real_person_under_two_names_is_found_and_others_are_not(shared: Path, project: Path, tmp_path: Path) -> None:
    import cv2

    params = load_params(project / "profiles" / "tiny.yaml", real_networks(shared))
    pack = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface"))
    folders = sorted((shared / "photos" / "lfw10_krasserm").iterdir())[:4]
    rows = []
    for folder in folders:
        for number, file in enumerate(sorted(folder.glob("*.jpg"))[:4]):
            picture = cv2.imread(str(file))[..., ::-1]
            face = max(pack.detect(picture), key=lambda found: found.area)
            (vector,) = pack.embed([picture], [face.keypoints])
            split = "val" if folder == folders[0] else "train"
            row = accepted_row(len(rows), identity=folder.name, file_name=file.name, split=split)
            # Half of the second person's photos have another name.
            planted = {"identity": "another name", "split": "test"} if folder == folders[1] and number < 2 else {}
            rows.append(row | {"embedding": vector, **planted})
    (pair,) = find_twins(write(tmp_path, rows), params)
    assert pair.names == ("another name", folders[1].name)
    assert pair.similarity > pair.bound >= 0.328


def test_faces_that_may_be_none_are_listed_and_pass(
    params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of_people()
    for number, row in enumerate(rows):
        row["det_score"] = 0.95 if number > 22 else 0.5 + number / 100
    verdict = run(params, Inputs(write(tmp_path / "processed", rows)), Outputs(tmp_path / "report"))
    assert [item.name for item in verdict.warnings()] == ["doubtful_faces"]
    printed = capsys.readouterr().err
    assert "doubtful face: p0/0.jpg (score 0.50 < 0.9)" in printed
    assert printed.count("doubtful face:") == 20
    assert "and 3 more doubtful faces: `det_score` in" in printed

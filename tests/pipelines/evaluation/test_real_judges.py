"""The judges on real photographs: small published networks can judge them, those that know drawings cannot."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.params import Params, check_params, load_params, read_tree
from pipelines.core.sections.evaluation import DetectorJudge, JudgeBounds
from pipelines.data.faces.analysis import load_analyser
from pipelines.data.preprocessing.partition import split_of
from pipelines.evaluation.judge_loading import load_judges
from pipelines.evaluation.judge_quality import measure_judges, refuse_conditioning, unfit
from pipelines.evaluation.photos import Photo, PhotoRecord
from pipelines.evaluation.sampling import decoded_again
from pipelines.evaluation.text_judge import NoTextJudge

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(1800)]
SIDE = 128
LABELLED = 100
Analyse = Callable[[Path, list[dict[str, str]], str], list[Photo]]


def located(node: Any, shared: Path) -> Any:
    """Return parameters whose networks are those of ../shared/weights, wherever they lie there."""
    if isinstance(node, dict):
        return {key: located(value, shared) for key, value in node.items()}
    if isinstance(node, list):
        return [located(value, shared) for value in node]
    if isinstance(node, str) and node.startswith("weights/"):
        return next((str(found) for found in (shared / "weights").rglob(Path(node).name)), node)
    return node


@pytest.fixture(scope="module")
def params(project: Path, shared: Path) -> Params:
    """The profile `photographs`, with an independent detector and without CLIP, which is made with a base."""
    tree = located(read_tree(project / "profiles" / "photographs.yaml"), shared)
    tree["evaluate"]["judges"]["clip"] = None
    found = check_params(tree, "photographs")
    detector = DetectorJudge(path=str(shared / "weights" / "detection" / "yunet_n_640_640.onnx"))
    judges = found.evaluate.judges.model_copy(update={"detector": detector})
    return found.model_copy(update={"evaluate": found.evaluate.model_copy(update={"judges": judges})})


@pytest.fixture(scope="module")
def analyse(params: Params) -> Analyse:
    """Return what analyses the photos of a table as the profile's `preprocess` does; `who` is the column of people."""
    analyser = load_analyser(params.preprocess)

    def photos(folder: Path, rows: list[dict[str, str]], who: str) -> list[Photo]:
        found = []
        for row in rows:
            (record,) = analyser.analyse([(folder / row["file"]).read_bytes()], ["a photo"], [None])
            if record.image is None:
                continue
            known = PhotoRecord(row["file"], row[who], record.expression, record.pose, 0.0, "")
            found.append(
                Photo(
                    record=known,
                    encoded=record.image,
                    bbox=np.asarray(record.bbox),
                    keypoints=np.asarray(record.keypoints).reshape(5, 2),
                    landmarks=np.asarray(record.landmarks).reshape(68, 2),
                    embedding=np.asarray(record.embedding),
                    yaw=float(record.yaw or 0),
                )
            )
        return found

    return photos


@pytest.fixture(scope="module")
def photos(analyse: Analyse, shared: Path) -> list[Photo]:
    """The photos of ../shared/photos whose person is known."""
    with (shared / "photos" / "MANIFEST.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["identity"]]
    return analyse(shared / "photos", rows, "identity")


@pytest.fixture(scope="module")
def soften(shared: Path) -> Callable[[list[Photo]], list[np.ndarray]]:
    """Return what gives photos back as the autoencoder of small photographs does."""
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(shared / "weights" / "taesd")
    return lambda photos: decoded_again(vae, [photo.image for photo in photos], SIDE, 16)


@pytest.fixture(scope="module")
def softened(photos: list[Photo], soften: Callable[[list[Photo]], list[np.ndarray]]) -> list[np.ndarray]:
    return soften(photos)


def test_small_published_networks_can_judge_photographs(
    params: Params, photos: list[Photo], softened: list[np.ndarray]
) -> None:
    faces = load_judges(params).faces
    refuse_conditioning(faces.known(photos), photos, params.evaluate.judges.recogniser.path)
    no_text = {"text": "evaluate.judges.clip names no network"}
    found = measure_judges(faces, NoTextJudge(), photos, [photo.image for photo in photos], JudgeBounds())
    figures = {name: dict(one.figures) for name, one in found.items()}
    assert unfit(found) == no_text, figures
    assert figures["recogniser"]["auc"] > 0.99, figures
    assert figures["detector"]["faces_found"] > 0.95, figures
    assert figures["pose"]["yaw_error"] < 6, figures
    # In squares of 128 pixels, faces are small: the autoencoder takes from them what tells people apart.
    soft = measure_judges(faces, NoTextJudge(), photos, softened, JudgeBounds())
    print(figures, {name: dict(one.figures) for name, one in soft.items()})
    assert unfit(soft) == no_text, soft
    assert 0.85 < soft["recogniser"].figures["auc"] < figures["recogniser"]["auc"] - 0.05


def test_the_judge_of_expressions_agrees_with_people_on_faces_after_the_autoencoder(
    params: Params, analyse: Analyse, soften: Callable[[list[Photo]], list[np.ndarray]], shared: Path
) -> None:
    section = params.preprocess
    with (shared / "faces_labelled" / "labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = [
            row
            for row in csv.DictReader(handle)
            if split_of(row["person"], section.test_share, section.val_share) == "val"
        ]
    photos = analyse(shared / "faces_labelled", rows[:LABELLED], "person")
    labels = {row["file"]: row["expression"] for row in rows}
    labelled = [
        replace(one, record=replace(one.record, expression=labels[one.record.image_id] or None)) for one in photos
    ]
    soft, faces = soften(photos), load_judges(params).faces
    for known in (labelled, photos):  # by a student; by the network of preprocessing, where it is sure
        found = measure_judges(faces, NoTextJudge(), known, soft, JudgeBounds())["expression"]
        print(found.plain())
        assert found.reason is None, found
        assert min(found.figures[f"recall_{word}"] for word in ("happy", "neutral")) > 0.5, found


def test_networks_that_know_drawings_cannot_judge_photographs(
    photos: list[Photo], softened: list[np.ndarray], project: Path
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    judges = load_judges(params)
    for shown in ([photo.image for photo in photos], softened):
        found = measure_judges(judges.faces, judges.text, photos, shown, params.evaluate.judges.bounds)
        figures = {name: dict(one.figures) for name, one in found.items()}
        assert {"recogniser", "expression", "pose", "text"} <= set(unfit(found)), figures
        assert figures["recogniser"]["auc"] < 0.85, figures

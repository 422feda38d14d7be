"""The face networks of the tiny profile on drawn people, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.face.face_prompts import pose_of_yaw
from pipelines.core.params import Params
from pipelines.data.faces.analysis import Analyser, load_analyser
from pipelines.data.synthetic.dataset import person_scenes
from pipelines.data.synthetic.draw import Picture, render
from pipelines.data.synthetic.person import Person
from tests.pipelines.photos import encoded


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """Two people of another stream than any dataset's, in every fifth of their scenes, at 128 pixels."""
    return [
        render(Person.sample("analyser-test", 5, index), scene, 128)
        for index in range(2)
        for scene in person_scenes(5, index, "analyser-test")[index::5]
    ]


@pytest.fixture(scope="module")
def analyser(params: Params) -> Analyser:
    return load_analyser(params.preprocess)


def test_drawn_people_are_measured_near_their_truth(analyser: Analyser, pictures: list[Picture]) -> None:
    photos = [encoded(picture.image, quality=95) for picture in pictures]
    records = analyser.analyse(photos, [p.prompt for p in pictures], [p.face_prompt for p in pictures])
    assert [record.reason for record in records] == [None] * len(pictures)
    points, yaws = [], []
    for record, picture in zip(records, pictures, strict=True):
        assert (record.expression, record.prompt) == (picture.expression, picture.prompt)
        points.append(np.linalg.norm(record.landmarks - picture.landmarks / 2, axis=1).mean())
        yaws.append((record.yaw, picture.yaw))
    measured, true = np.array(yaws).T
    assert np.mean(points) < 2.5
    assert np.corrcoef(measured, true)[0, 1] > 0.95
    poses = [pose_of_yaw(yaw) == picture.pose for yaw, picture in zip(measured, pictures, strict=True)]
    assert np.mean(poses) > 0.8
    people = np.array([record.embedding for record in records])
    likeness = people @ people.T
    half = len(pictures) // 2
    assert likeness[:half, :half].mean() > likeness[:half, half:].mean() + 0.2


def test_faces_are_found_in_pictures_of_the_generated_size(analyser: Analyser, pictures: list[Picture]) -> None:
    small = [np.asarray(Image.fromarray(picture.image).resize((64, 64), 1)) for picture in pictures]
    found = analyser.analyse_images(small)
    assert np.mean([len(faces) == 1 for faces in found]) > 0.8
    errors = [
        np.abs(faces[0].keypoints - picture.keypoints / 2).mean()
        for faces, picture in zip(found, pictures, strict=True)
        if faces
    ]
    assert np.mean(errors) < 2.5

"""The worst figure decides a gate; neighbours vote on colours; prompts get every alternative; rows are balanced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.face.face_prompts import POSES
from model.foundation.clip import prompt_labels
from model.foundation.gates import check_gates
from model.foundation.measure import UnseenPeople
from model.foundation.people import People
from model.foundation.readers import clothes_colour, nearest_class, surroundings_colour
from model.foundation.text_to_image import alternatives, balanced_rows

PROMPTS = ("a photo of a man wearing an orange hoodie, on a beach", "a woman in a red shirt, red background")


def test_the_worst_figure_decides() -> None:
    figures = {"judge": {"auc_128": 0.999, "auc_64": 0.99}, "landmarks": {"nme_box_128": 0.02, "nme_box_64": 0.04}}
    judge, landmarks = sorted(check_gates(figures), key=lambda result: result.part)
    assert (judge.value, judge.passed) == (0.99, False)
    assert (landmarks.value, landmarks.passed) == (0.04, False)
    figures["landmarks"]["nme_box_64"] = 0.03
    assert [result.passed for result in check_gates(figures) if result.part == "landmarks"] == [True]


def test_a_gate_without_its_figures_is_left_out_and_one_that_failed_to_measure_is_missed() -> None:
    assert check_gates({}) == []
    assert check_gates({"judge": {"auc_128": 1.0}}) == []
    (result,) = check_gates({"judge": {"auc_128": 1.0, "auc_64": None}})
    assert (result.value, result.passed) == (None, False)


def test_alternatives_replace_the_slot_of_the_prompt() -> None:
    labels = prompt_labels(PROMPTS)
    assert labels.colours == ("orange", "red")
    assert labels.settings == ("on a beach", "red background")
    assert alternatives(PROMPTS[0], labels, "shirt") == [
        "a photo of a man wearing an orange hoodie, on a beach",
        "a photo of a man wearing a red hoodie, on a beach",
    ]
    assert alternatives(PROMPTS[1], labels, "shirt")[0] == "a woman in an orange shirt, red background"
    assert alternatives(PROMPTS[1], labels, "background") == [
        "a woman in a red shirt, on a beach",
        "a woman in a red shirt, red background",
    ]


def test_neighbours_vote_without_the_row_itself() -> None:
    known = np.repeat([[0.0], [10.0]], 8, 0)
    classes = np.repeat([0, 1], 8)
    assert nearest_class(known, classes, np.array([[1.0], [9.0]])).tolist() == [0, 1]
    alone = np.array([[0.0], [10.0], [11.0], [12.0], [13.0]])
    assert nearest_class(alone, np.array([0, 1, 1, 1, 1]), alone, leave_out=True).tolist() == [1] * 5


def test_colours_are_those_of_clothes_and_surroundings() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    image[56:, 10:54] = (200, 30, 30)
    red = clothes_colour(image)
    assert red.shape == (9,)
    assert np.abs(red - clothes_colour(np.full((64, 64, 3), (200, 30, 30), np.uint8))).max() < 1
    assert np.abs(surroundings_colour(image) - clothes_colour(np.full((64, 64, 3), 128, np.uint8))).max() < 1


@pytest.fixture
def people() -> People:
    motions = np.arange(70) % 35
    empty = np.zeros((70, 1), np.float32)
    return People(
        photos=np.zeros((70, 2, 2, 3), np.uint8),
        landmarks=empty,
        keypoints=empty,
        boxes=empty,
        angles=empty,
        identity=np.arange(70) // 7,
        expression=motions // len(POSES),
        pose=motions % len(POSES),
        prompts=("",) * 70,
        face_prompts=("",) * 70,
    )


def test_rows_are_balanced_over_expressions_and_poses(people: People) -> None:
    rows = balanced_rows(people, 35)
    assert len(set(zip(people.expression[rows].tolist(), people.pose[rows].tolist(), strict=True))) == 35
    assert len(set(balanced_rows(people, 70).tolist())) == 70


def test_unseen_people_are_all_held_out(people: People) -> None:
    unseen = UnseenPeople(**vars(replace(people)))
    assert len(people.held_out) == 7
    assert len(unseen.held_out) == 70
    assert len(unseen.train) == 0

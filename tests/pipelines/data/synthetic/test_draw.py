"""Draw pictures and their ground truth."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES
from pipelines.data.synthetic.draw import Truth, render, render_group, truth
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene
from pipelines.data.synthetic.sheet import contact_sheet


def scene(expression: str = "neutral", pose: str = "front", seed: int = 0) -> Scene:
    sampled = Scene.sample(np.random.default_rng(seed), expression, pose)
    return replace(sampled, yaw=POSE_YAW[pose], pitch=0.0, roll=0.0, intensity=1.0)


def person(index: int = 0) -> Person:
    return Person.sample("dataset", 0, index)


def truth_of(expression: str = "neutral", pose: str = "front", index: int = 0) -> Truth:
    return truth(person(index), scene(expression, pose), 128)


def test_the_same_arguments_draw_the_same_bytes() -> None:
    first, second = render(person(2), scene("happy", "left"), 64), render(person(2), scene("happy", "left"), 64)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    assert np.array_equal(first.landmarks, second.landmarks)


def test_any_size_shows_the_same_picture() -> None:
    for index, pose in ((1, "front"), (8, "half_right"), (5, "left")):
        large = render(person(index), scene("surprised", pose), 300)
        for size in (32, 64, 128):
            small = render(person(index), scene("surprised", pose), size)
            shrunk = cv2.resize(large.image, (size, size), interpolation=cv2.INTER_AREA)
            assert np.abs(shrunk.astype(float) - small.image).mean() < 5
            assert np.abs(small.landmarks / size - large.landmarks / 300).max() < 0.005


@pytest.mark.parametrize("pose", POSES)
def test_landmarks_are_in_the_picture_in_anatomical_order(pose: str) -> None:
    for index in range(12):
        for expression in EXPRESSIONS:
            sample = Scene.sample(np.random.default_rng(index), expression, pose)
            points = truth(person(index), sample, 128)
            marks = points.landmarks
            assert marks.shape == (68, 2)
            assert marks.dtype == np.float32
            assert (marks >= 0).all()
            assert (marks < 128).all()
            eyes, nose, mouth = marks[36:48, 1].mean(), marks[30, 1], marks[48:68, 1].mean()
            brow = marks[17:27, 1].mean()
            assert brow < eyes < nose < mouth < marks[8, 1]
            assert marks[0, 0] < marks[16, 0]
            assert marks[36:42, 0].mean() < marks[42:48, 0].mean()
            assert marks[48, 0] < marks[54, 0]
            x0, y0, x1, y1 = points.box
            assert x0 <= marks[:, 0].min() < marks[:, 0].max() <= x1
            assert y0 < brow
            assert abs(y1 - marks[:, 1].max()) < 0.01
            assert 0.42 < (y1 - y0) / 128 < 0.75


def test_positive_yaw_turns_to_the_pictures_right_and_positive_pitch_up() -> None:
    for index in range(8):
        shift = []
        for pose in POSES:
            keys = truth_of(pose=pose, index=index).keypoints
            shift.append(keys[2, 0] - keys[:2, 0].mean())
        assert shift[0] < shift[1] < shift[2] < shift[3]
        assert shift[1] < 0 < shift[3] and shift[4] > 0  # noqa: PT018
        up = truth(person(index), replace(scene(), pitch=15.0), 128).keypoints
        assert up[2, 1] < truth_of(index=index).keypoints[2, 1]
        tilted = truth(person(index), replace(scene(), roll=10.0), 128).keypoints
        assert tilted[1, 1] > tilted[0, 1]


def test_expressions_move_the_landmarks() -> None:
    for index in range(8):
        faces = {expression: truth_of(expression, index=index).landmarks for expression in EXPRESSIONS}
        moved = {name: marks - faces["neutral"] for name, marks in faces.items()}
        gap = {name: marks[66, 1] - marks[62, 1] for name, marks in faces.items()}
        assert (moved["happy"][[48, 54], 1] < moved["happy"][[51, 57], 1].mean()).all()  # corners up
        assert moved["happy"][48, 0] < 0 < moved["happy"][54, 0]
        assert (moved["sad"][[48, 54], 1] > 0).all()
        assert (moved["sad"][[21, 22], 1] < moved["sad"][[17, 26], 1]).all()  # inner brows up
        assert (moved["angry"][[21, 22], 1] > moved["angry"][[17, 26], 1]).all()  # inner brows down
        assert (moved["surprised"][17:27, 1] < 0).all()
        assert gap["surprised"] > gap["happy"] > 2 > gap["neutral"]
        assert moved["surprised"][8, 1] > 0  # jaw drops
        wide = {name: (marks[[41, 46], 1] - marks[[37, 44], 1]).mean() for name, marks in faces.items()}
        assert min(wide["surprised"], wide["fearful"]) > wide["neutral"] > max(wide["disgusted"], wide["happy"])


def test_mouth_landmarks_are_on_the_drawn_mouth() -> None:
    bare = replace(person(1), beard="none", mole_size=0.0)
    picture = render(bare, scene("surprised"), 256)
    hull = cv2.convexHull(picture.landmarks[60:68].round().astype(np.int32))
    mask = np.zeros((256, 256), np.uint8)
    cv2.fillConvexPoly(mask, hull, 1)
    inside = picture.image[cv2.erode(mask, np.ones((5, 5))) > 0].mean()
    ring = cv2.dilate(mask, np.ones((25, 25))) - cv2.dilate(mask, np.ones((19, 19)))
    assert inside < 0.75 * picture.image[ring > 0].mean()


def test_people_differ_more_than_photos_of_one_person_in_shape() -> None:
    shapes = np.stack([truth_of(index=index).landmarks for index in range(12)])
    spread = np.abs(shapes - shapes.mean(0)).mean()
    first = scene()
    other = replace(scene(seed=9), offset_x=first.offset_x, offset_y=first.offset_y, scale=first.scale)
    again = truth(person(0), other, 128)
    assert np.abs(again.landmarks - shapes[0]).mean() < 1e-3 < spread


def test_a_group_shows_all_people_from_left_to_right() -> None:
    for count in (2, 3):
        people = [(person(index), scene("happy", "front", index)) for index in range(count)]
        image, truths = render_group(people, 96)
        assert image.shape == (96, 96, 3)
        assert len(truths) == count
        noses = [t.keypoints[2, 0] for t in truths]
        assert noses == sorted(noses)
        assert all((t.landmarks >= 0).all() and (t.landmarks < 96).all() for t in truths)
        assert truths[0].prompt == truths[1].prompt
        assert f"{ {2: 'two', 3: 'three'}[count] } people" in truths[0].prompt
    with pytest.raises(ValueError, match="expected 2 or 3"):
        render_group([(person(), scene())], 64)


def test_contact_sheet_is_twelve_pictures_wide() -> None:
    assert contact_sheet(size=16, people=12, grid_people=1).shape == (16 * 3, 16 * 12, 3)

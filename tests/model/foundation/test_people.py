import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.foundation import people as people_module
from model.foundation import render as render_module
from model.foundation.edition import GroupShape
from model.foundation.people import PhotoSpec, RenderedPhoto, open_people
from model.foundation.render import render_people


def draw(spec: PhotoSpec) -> RenderedPhoto:
    rng = np.random.default_rng([*spec.people, spec.photo])
    faces = len(spec.people)
    width, height = spec.canvas or (spec.size, spec.size)
    return RenderedPhoto(
        image=rng.integers(0, 255, (height, width, 3)).astype(np.uint8),
        landmarks=rng.random((faces, 68, 2)).astype(np.float32),
        keypoints=rng.random((faces, 5, 2)).astype(np.float32),
        boxes=rng.random((faces, 4)).astype(np.float32),
        angles=rng.random((faces, 3)).astype(np.float32),
        prompt=f"{spec.people} {spec.photo}",
        face_prompts=tuple(compose(e, p) for e, p in zip(spec.expressions, spec.poses, strict=True)),
    )


def draw_until_killed(spec: PhotoSpec) -> RenderedPhoto:
    if spec.people[0] == 7:
        raise KeyboardInterrupt
    return draw(spec)


def arguments() -> dict:
    return {"people": 12, "photos": 5, "size": 16, "seed": 3, "workers": 1, "groups": 0.4}


def test_rows_have_their_labels(tmp_path):
    data = render_people(tmp_path / "people", draw, **arguments())
    assert data.photos.shape == (60, 16, 16, 3)
    (pairs,) = data.groups
    assert pairs.photos.shape == (24, 16, 16, 3)
    for row in range(60):
        spec = PhotoSpec(3, row % 5, (row // 5,), ("",), ("",), 16)
        rng = np.random.default_rng([row // 5, row % 5])
        assert np.array_equal(data.photos[row], rng.integers(0, 255, (16, 16, 3)))
        assert data.identity[row] == spec.people[0]
        assert data.prompts[row] == f"{spec.people} {row % 5}"
        assert data.face_prompts[row] == compose(EXPRESSIONS[data.expression[row]], POSES[data.pose[row]])
    assert len(pairs.prompts) == 24
    assert pairs.face_prompts[0] == tuple(
        compose(EXPRESSIONS[pairs.expression[0, person]], POSES[pairs.pose[0, person]]) for person in range(2)
    )


def test_a_person_has_every_expression_and_pose_once_before_any_twice(tmp_path):
    data = render_people(tmp_path / "people", draw, **{**arguments(), "photos": 35})
    for person in range(12):
        rows = data.identity == person
        assert len(set(zip(data.expression[rows].tolist(), data.pose[rows].tolist(), strict=True))) == 35


def test_held_out_people_are_in_no_training_row(tmp_path):
    data = render_people(tmp_path / "people", draw, **arguments())
    assert set(data.identity[data.train]) | set(data.identity[data.held_out]) == set(range(12))
    assert not set(data.identity[data.train]) & set(data.identity[data.held_out])
    (pairs,) = data.groups
    assert (pairs.identity[data.train_rows(pairs)] < data.first_held_out).all()


def test_a_killed_run_resumes_to_the_same_set(tmp_path):
    whole = render_people(tmp_path / "whole", draw, **arguments())
    with pytest.raises(KeyboardInterrupt):
        render_people(tmp_path / "resumed", draw_until_killed, **arguments())
    with (tmp_path / "resumed" / "finished.jsonl").open("a") as log:
        log.write('{"key": "person 6", "ro')
    resumed = render_people(tmp_path / "resumed", draw, **arguments())
    assert np.array_equal(whole.photos, resumed.photos)
    assert np.array_equal(whole.groups[0].photos, resumed.groups[0].photos)
    assert whole.prompts == resumed.prompts
    assert whole.groups[0].face_prompts == resumed.groups[0].face_prompts


def test_unfinished_sets_and_other_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished set"):
        open_people(tmp_path)
    render_people(tmp_path, draw, **arguments())
    with pytest.raises(ValueError, match="other settings"):
        render_people(tmp_path, draw, **{**arguments(), "photos": 6})


def test_no_picture_mixes_training_and_held_out_people():
    held_out = people_module.first_held_out(60)
    sets = render_module._group_sets(60, 5, 16, 0.7, SHAPES)
    mixed = [
        len({person >= held_out for person in spec.people})
        for chunk in render_module._chunks(60, 5, 16, 0, sets)
        for spec in chunk.specs
    ]
    assert set(mixed) == {1}


SHAPES = (GroupShape(24, 16, 9, (1, 2, 3)), GroupShape(16, 32, 4, (2,)))


def test_pictures_of_several_people_have_every_shape_and_number(tmp_path):
    data = render_people(tmp_path / "people", draw, **arguments(), shapes=SHAPES)
    wide, tall = data.groups
    assert (wide.photos.shape, tall.photos.shape) == ((9, 16, 24, 3), (4, 32, 16, 3))
    assert wide.count.tolist() == [1, 2, 3] * 3
    assert (wide.identity[0, 1:] == -1).all()
    assert not wide.boxes[0, 1:].any()
    for row in range(9):
        people = wide.identity[row, : wide.count[row]]
        assert len(set(people.tolist())) == wide.count[row]
        assert wide.prompts[row] == f"{tuple(people.tolist())} {row}"
        assert len(wide.face_prompts[row]) == wide.count[row]
    assert set(data.train_rows(tall)) <= set(range(4))
    with pytest.raises(ValueError, match="other settings"):
        render_people(tmp_path / "people", draw, **arguments(), shapes=SHAPES[:1])


def test_two_machines_draw_the_same(tmp_path):
    one = render_people(tmp_path / "one", draw, **arguments(), shapes=SHAPES)
    # Half of it was drawn, in another order, before it stopped.
    (tmp_path / "two").mkdir()
    with pytest.raises(KeyboardInterrupt):
        render_people(tmp_path / "two", draw_until_killed, **arguments(), shapes=SHAPES)
    two = render_people(tmp_path / "two", draw, **{**arguments(), "workers": 2}, shapes=SHAPES)
    for first, second in zip((one, *one.groups), (two, *two.groups), strict=True):
        assert np.array_equal(first.photos, second.photos)
        assert first.prompts == second.prompts


def test_too_few_people_for_a_picture_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 people, expected at least 4 for pictures of 3"):
        render_people(tmp_path, draw, **{**arguments(), "people": 3}, shapes=SHAPES)

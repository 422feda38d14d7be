import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.foundation import people as module
from model.foundation.people import PhotoSpec, RenderedPhoto, open_people, render_people


def draw(spec: PhotoSpec) -> RenderedPhoto:
    rng = np.random.default_rng([*spec.people, spec.photo])
    faces = len(spec.people)
    return RenderedPhoto(
        image=rng.integers(0, 255, (spec.size, spec.size, 3)).astype(np.uint8),
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
    assert data.group["photos"].shape == (24, 16, 16, 3)
    for row in range(60):
        spec = PhotoSpec(3, row % 5, (row // 5,), ("",), ("",), 16)
        rng = np.random.default_rng([row // 5, row % 5])
        assert np.array_equal(data.photos[row], rng.integers(0, 255, (16, 16, 3)))
        assert data.identity[row] == spec.people[0]
        assert data.prompts[row] == f"{spec.people} {row % 5}"
        assert data.face_prompts[row] == compose(EXPRESSIONS[data.expression[row]], POSES[data.pose[row]])
    assert len(data.group_prompts) == 24
    first, second = data.group_face_prompts[0]
    assert first == compose(EXPRESSIONS[data.group["expression"][0, 0]], POSES[data.group["pose"][0, 0]])
    assert second == compose(EXPRESSIONS[data.group["expression"][0, 1]], POSES[data.group["pose"][0, 1]])


def test_a_person_has_every_expression_and_pose_once_before_any_twice(tmp_path):
    data = render_people(tmp_path / "people", draw, **{**arguments(), "photos": 35})
    for person in range(12):
        rows = data.identity == person
        assert len(set(zip(data.expression[rows].tolist(), data.pose[rows].tolist(), strict=True))) == 35


def test_held_out_people_are_in_no_training_row(tmp_path):
    data = render_people(tmp_path / "people", draw, **arguments())
    assert set(data.identity[data.train]) | set(data.identity[data.held_out]) == set(range(12))
    assert not set(data.identity[data.train]) & set(data.identity[data.held_out])
    assert (data.group["identity"][data.group_train] < data.first_held_out).all()


def test_a_killed_run_resumes_to_the_same_set(tmp_path):
    whole = render_people(tmp_path / "whole", draw, **arguments())
    with pytest.raises(KeyboardInterrupt):
        render_people(tmp_path / "resumed", draw_until_killed, **arguments())
    with (tmp_path / "resumed" / "finished.jsonl").open("a") as log:
        log.write('{"key": "person 6", "ro')
    resumed = render_people(tmp_path / "resumed", draw, **arguments())
    assert np.array_equal(whole.photos, resumed.photos)
    assert np.array_equal(whole.group["photos"], resumed.group["photos"])
    assert whole.prompts == resumed.prompts
    assert whole.group_face_prompts == resumed.group_face_prompts


def test_unfinished_sets_and_other_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished set"):
        open_people(tmp_path)
    render_people(tmp_path, draw, **arguments())
    with pytest.raises(ValueError, match="other settings"):
        render_people(tmp_path, draw, **{**arguments(), "photos": 6})


def test_no_pair_mixes_training_and_held_out_people():
    held_out = 12 - max(round(12 * module.HELD_OUT_SHARE), 1)
    for _key, _row, specs in module._chunks(12, 5, 16, 0, 200):
        for spec in specs:
            assert len({person >= held_out for person in spec.people}) == 1

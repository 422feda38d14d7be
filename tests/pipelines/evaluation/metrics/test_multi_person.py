from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation.metrics.multi_person import AskedPeople, FoundFaces, PictureScore, score_picture

FIGURES = (
    "multi_id_similarity",
    "multi_id_min",
    "multi_expression_accuracy",
    "multi_pose_accuracy",
    "binding",
    "count_accuracy",
    "leakage",
)
# Person p motions like unit vector p, stands in slice p, and is asked for expression p and pose p.
UNIT = np.eye(5)


def asked(people: int) -> AskedPeople:
    middles = np.array([((place + 0.5) / people, 0.5) for place in range(people)])
    return AskedPeople([UNIT[[person]] for person in range(people)], middles, np.array([(p, p) for p in range(people)]))


def found(*faces: tuple[int, float, int, int]) -> FoundFaces:
    """Faces as (whose they are, x of the middle, expression, pose)."""
    return FoundFaces(
        UNIT[[whose for whose, *_ in faces]],
        np.array([(x, 0.5) for _, x, _, _ in faces]).reshape(-1, 2),
        np.array([(expression, pose) for *_, expression, pose in faces]).reshape(-1, 2),
    )


def figures(score: PictureScore) -> dict[str, float]:
    return {name: round(getattr(score, name), 6) for name in FIGURES}


BEST = dict(zip(FIGURES, (1, 1, 1, 1, 1, 1, 0), strict=True))


@pytest.mark.parametrize("people", [2, 3, 4])
def test_everybody_is_who_they_should_be_and_does_what_they_were_asked(people: int) -> None:
    faces = [(person, (person + 0.5) / people, person, person) for person in range(people)]
    assert figures(score_picture(found(*faces), asked(people))) == BEST
    # In whatever order a detector finds them.
    assert score_picture(found(*faces[::-1]), asked(people)).assigned == tuple(range(people))[::-1]


def test_a_missing_face_is_the_worst_value_of_everything() -> None:
    score = score_picture(found((1, 0.75, 1, 1)), asked(2))
    assert score.assigned == (-1, 0)
    assert figures(score) == dict(zip(FIGURES, (0.5, 0, 0.5, 0.5, 0.5, 0, 0.5), strict=True))
    empty = score_picture(found(), asked(3))
    assert figures(empty) == dict(zip(FIGURES, (0, 0, 0, 0, 0, 0, 1), strict=True))


def test_people_who_swapped_places_are_still_themselves() -> None:
    # Each does what they were asked, at the other's place.
    score = score_picture(found((1, 0.25, 1, 1), (0, 0.75, 0, 0)), asked(2))
    assert score.assigned == (1, 0)
    assert figures(score) == BEST


def test_one_face_that_is_drawn_twice_leaks() -> None:
    # Both faces are person 0: similarities 1 and 0; the second face is wholly the other person's, 1 of 2.
    score = score_picture(found((0, 0.25, 0, 0), (0, 0.75, 1, 1)), asked(2))
    assert figures(score) == dict(zip(FIGURES, (0.5, 0, 1, 1, 1, 1, 0.5), strict=True))
    # Of three people, two with the face of person 0: each is one of the two others of whom leakage is the mean.
    three = score_picture(found((0, 1 / 6, 0, 0), (0, 0.5, 1, 1), (0, 5 / 6, 2, 2)), asked(3))
    assert (three.multi_id_similarity, three.leakage) == (pytest.approx(1 / 3), pytest.approx((0 + 0.5 + 0.5) / 3))


def test_expression_on_the_wrong_person_is_no_binding() -> None:
    # Expressions are swapped, poses right: of four motions two are right, two on the other person.
    score = score_picture(found((0, 0.25, 1, 0), (1, 0.75, 0, 1)), asked(2))
    assert (score.multi_expression_accuracy, score.multi_pose_accuracy, score.binding) == (0, 1, 0)
    assert score.shows.tolist() == [[False, True], [False, True]]
    assert score_picture(found((0, 0.25, 1, 1), (1, 0.75, 0, 0)), asked(2)).binding == -1
    # Of three, motions go round: none right, each on one of two others.
    turned = found((0, 1 / 6, 1, 1), (1, 0.5, 2, 2), (2, 5 / 6, 0, 0))
    assert score_picture(turned, asked(3)).binding == -0.5
    # Everybody shows what person 0 was asked: right once of three, on both others of person 0 alone.
    same = score_picture(found((0, 1 / 6, 0, 0), (1, 0.5, 0, 0), (2, 5 / 6, 0, 0)), asked(3))
    assert same.multi_expression_accuracy == pytest.approx(1 / 3)
    assert same.binding == pytest.approx(0)


def test_motions_that_have_nothing_to_do_with_people_bind_nothing() -> None:
    rng = np.random.default_rng(0)
    for people in (2, 3, 4):
        faces = [
            [(person, (person + 0.5) / people, *rng.integers(5, size=2)) for person in range(people)]
            for _ in range(800)
        ]
        values = [score_picture(found(*one), asked(people)).binding for one in faces]
        assert np.mean(values) == pytest.approx(0, abs=0.03)


def test_the_assignment_is_the_best_for_all_and_not_greedy() -> None:
    # Face 0 is a little nearer to person 0, but face 1 resembles only person 0.
    embeddings = np.array([[0.8, 0.6, 0.0], [0.7, -0.7, 0.14]])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    people = asked(2)
    at_once = FoundFaces(embeddings, np.full((2, 2), 0.5), np.zeros((2, 2), int))
    people = AskedPeople([one[:, :3] for one in people.photos], people.middles, people.motions)
    assert score_picture(at_once, people).assigned == (1, 0)


def test_faces_that_resemble_nobody_are_assigned_by_place() -> None:
    strangers = found((4, 0.75, 1, 1), (4, 0.25, 0, 0))
    score = score_picture(strangers, asked(2))
    assert score.assigned == (1, 0)
    assert (score.multi_id_similarity, score.multi_expression_accuracy, score.binding) == (0, 1, 1)
    # A face too many is not assigned, and makes the count wrong.
    third = score_picture(found((4, 0.25, 0, 0), (4, 0.75, 1, 1), (4, 0.5, 0, 0)), asked(2))
    assert (third.assigned, third.count_accuracy) == ((0, 1), 0)


def test_leakage_is_the_likeness_to_the_other_person() -> None:
    embeddings = np.array([[0.8, 0.6, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]])
    score = score_picture(FoundFaces(embeddings, asked(2).middles, asked(2).motions), asked(2))
    assert score.leakage == pytest.approx((0.6 + 0.0) / 2)
    assert score.own == pytest.approx((0.8, 1.0))


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.data())
def test_the_order_of_people_and_of_faces_changes_nothing(data: st.DataObject) -> None:
    people, count = data.draw(st.integers(2, 4)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def units(rows: int) -> np.ndarray:
        values = rng.normal(size=(rows, 6))
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))

    motions = np.stack([rng.permutation(7)[:people], rng.permutation(5)[:people]], 1)
    known = AskedPeople([units(2) for _ in range(people)], rng.random((people, 2)), motions)
    faces = FoundFaces(units(count), rng.random((count, 2)), rng.integers(5, size=(count, 2)))
    who, which = data.draw(st.permutations(range(people))), data.draw(st.permutations(range(count)))
    moved = AskedPeople([known.photos[one] for one in who], known.middles[list(who)], known.motions[list(who)])
    order = list(which)
    shuffled = FoundFaces(faces.embeddings[order], faces.middles[order], faces.motions[order])
    first, second = score_picture(faces, known), score_picture(shuffled, moved)
    assert figures(first) == pytest.approx(figures(second), abs=1e-6)
    assert [first.own[one] for one in who] == pytest.approx(second.own)

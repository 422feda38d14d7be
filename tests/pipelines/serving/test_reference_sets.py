"""Several references of one person: the best one, and whether they are of one person."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.faces.calibration import Recogniser, RecogniserThresholds
from pipelines.data.faces.record import FaceRecord
from pipelines.serving.reference_sets import best_first, doubt, linked_with_first

KNOWN = RecogniserThresholds(network="net", similarity=0.5, same=0.7, excess=0.1, copies=0.9)


def record(angle: float, *, yaw: float = 0.0, pitch: float = 0.0) -> FaceRecord:
    """Return a face whose embedding points to an angle in degrees of one plane."""
    turned = np.radians(angle)
    return FaceRecord("ok", embedding=np.array([np.cos(turned), np.sin(turned)], np.float32), yaw=yaw, pitch=pitch)


def test_the_most_frontal_reference_is_the_best_and_the_others_keep_their_order() -> None:
    given = [record(0, yaw=-40), record(1, yaw=3, pitch=30), record(2, yaw=-12, pitch=5), record(3, yaw=50)]
    assert best_first(given) == [given[2], given[0], given[1], given[3]]


@pytest.mark.parametrize(
    ("angles", "begin"),
    [
        ((0, 55), ""),
        ((0, 65), "a and b may show different people: similarity 0.42, below 0.5"),
        ((0, 100, 50), ""),  # linked by the third
        ((0, 10, 150, 95), "a, b and c, d may show different people: similarity 0.09"),
        ((0, 180, 170), "a and b, c may show different people: similarity -0.98"),
    ],
)
def test_references_that_no_chain_of_similar_ones_links_are_named(angles: tuple[float, ...], begin: str) -> None:
    note = doubt([record(angle) for angle in angles], list("abcd"[: len(angles)]), Recogniser("pack", "0" * 64, KNOWN))
    assert note.startswith(begin) if begin else note == ""


def test_references_are_doubted_below_what_photos_of_one_person_reach() -> None:
    known = Recogniser("pack", "0" * 64, KNOWN.model_copy(update={"doubtful": 0.4}))
    assert doubt([record(0), record(65)], ["a", "b"], known) == ""
    assert "similarity 0.34, below 0.4" in doubt([record(0), record(70)], ["a", "b"], known)


def test_an_unknown_recogniser_is_named() -> None:
    note = doubt([record(0), record(90)], ["a", "b"], Recogniser("pack", "0" * 64, None))
    assert note.startswith("a, b: not checked whether they show one person: the recogniser pack (000000000000) has no")


def test_one_is_linked_with_itself() -> None:
    linked, similarity = linked_with_first(np.eye(3)[:1], 0.5)
    assert linked.tolist() == [True]
    assert similarity == 1

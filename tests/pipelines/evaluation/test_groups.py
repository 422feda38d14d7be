from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.groups import GROUP_METRICS, score_groups, sex_of, tone_of, typology_angle
from pipelines.evaluation.scoring import Scores


def face_of(colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    image = np.full((64, 64, 3), (40, 90, 200), np.uint8)
    image[12:56, 14:50] = colour
    angle = np.linspace(0, np.pi, 17)
    landmarks = np.tile([32.0, 32.0], (68, 1))
    landmarks[:17] = np.stack([32 - 17 * np.cos(angle), 32 + 20 * np.sin(angle)], 1)
    for point, place in {41: (26, 28), 31: (29, 36), 48: (26, 42), 46: (38, 28), 35: (35, 36), 54: (38, 42)}.items():
        landmarks[point] = place
    landmarks[27] = (32, 26)
    return image, landmarks.astype(np.float32)


@pytest.mark.parametrize(
    ("colour", "tone"),
    [((244, 214, 196), "light skin"), ((198, 150, 118), "medium skin"), ((92, 60, 44), "dark skin")],
)
def test_the_tone_is_read_from_the_cheeks(colour: tuple[int, int, int], tone: str) -> None:
    assert tone_of(typology_angle(*face_of(colour))) == tone


def test_the_sex_is_what_most_captions_name() -> None:
    assert sex_of(["a photo of a woman", "a photo of a person", "a woman in red"]) == "women"
    assert sex_of(["a portrait of a man in red", "a person"]) == "men"
    assert sex_of(["a person", "a photo of a person"]) is None
    assert sex_of(["a man", "a woman"]) is None


def test_intervals_of_small_groups_contain_the_true_mean_as_often_as_stated() -> None:
    """400 samples of a normal distribution around zero: 95 % of the intervals contain it, ± 3 %."""
    rng = np.random.default_rng(3)
    person = np.arange(12)
    members = {size: list(range(size)) for size in (2, 3, 6)}
    held = dict.fromkeys(members, 0)
    for _ in range(400):
        scores = Scores(person, person, {name: rng.standard_normal(12) for name in GROUP_METRICS})
        found = score_groups({str(size): rows for size, rows in members.items()}, scores, 12)
        for size in members:
            interval = found[str(size)]["id_similarity"]
            held[size] += interval.low <= 0 <= interval.high
    assert all(0.92 <= count / 400 <= 0.98 for count in held.values()), held


def test_a_metric_of_one_person_has_no_interval_and_is_left_out() -> None:
    person = np.arange(3)
    columns = {name: np.array([0.5, np.nan, 0.7]) for name in GROUP_METRICS}
    found = score_groups({"two": [0, 2], "one": [0], "half": [0, 1]}, Scores(person, person, columns), 3)
    assert set(found["two"]) == set(GROUP_METRICS)
    assert found["two"]["face_rate"].value == pytest.approx(0.6)
    assert found["one"] == found["half"] == {}

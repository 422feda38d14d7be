from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.groups import sex_of, tone_of, typology_angle


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

"""Test that drawings and photographs are distinguished."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.data.faces.domain import (
    around_face,
    domain_of_picture,
    domains_of_dataset,
    measure_sample,
    sampled,
    unevenness,
)
from pipelines.data.synthetic.draw import render
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene
from tests.pipelines.photos import dataset_row, encoded, write_shards


def _drawn(number: int, size: int) -> np.ndarray:
    scene = Scene.sample(np.random.default_rng(number), "happy", "front", "person")
    return render(Person.sample("dataset", 31, number), scene, size).image


def _noise(seed: int) -> np.ndarray:
    """Return what has the statistics of a photograph: soft shapes and noise at every place."""
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.uniform(60, 200, (160, 160, 3)).astype(np.float32), (0, 0), 6)
    soft = (soft - soft.mean()) * 12 + 128
    return np.clip(soft + rng.normal(0, 3, soft.shape), 45, 240).astype(np.uint8)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_drawn_people_are_drawings(size: int) -> None:
    found = Counter(domain_of_picture(_drawn(number, size)) for number in range(12))
    assert found["drawn"] >= 10
    assert not found["photograph"]


def test_soft_and_noisy_pictures_are_photographs() -> None:
    assert {domain_of_picture(_noise(seed)) for seed in range(4)} == {"photograph"}


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_without_contrast_is_unknown(grey: int) -> None:
    empty = np.full((40, 30, 3), grey, np.uint8)
    assert unevenness(empty) is None
    assert domain_of_picture(empty) == "unknown"


@pytest.mark.parametrize("box", [(-50, -50, -20, -20), (5, 5, 5, 5), (-10, 20, 30, 500)])
def test_a_box_outside_of_the_picture_is_no_error(box: tuple[float, ...]) -> None:
    assert domain_of_picture(around_face(_noise(0), np.array(box, np.float32))) in ("drawn", "photograph", "unknown")


def test_rows_that_state_nothing_are_measured_and_damaged_ones_are_not_counted(tmp_path: Path) -> None:
    rows = [dataset_row(f"{n}.jpg", encoded(_noise(n)), domain=None if n % 2 else "photograph") for n in range(8)]
    rows.append(dataset_row("x.jpg", b"damaged"))
    stated, measured = domains_of_dataset(write_shards(tmp_path / "faces", DATASET_SCHEMA, [rows]), 10**7)
    assert stated == {"photograph": 4}
    assert measured == {"photograph": 4}


@pytest.mark.realdata
def test_real_photographs_are_not_drawings(shared: Path) -> None:
    with (shared / "photos" / "MANIFEST.csv").open() as file:
        files = [shared / "photos" / row["file"] for row in csv.DictReader(file) if row["identity"]]
    with (shared / "faces_labelled" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for kind in ("lfw", "imfdb"):
        faces = [str(shared / "faces_labelled" / row["file"]) for row in rows if row["set"] == kind]
        found = measure_sample(sampled(faces), 10**8)
        assert found["photograph"] >= 0.95 * found.total()
        assert not found["drawn"]
    found = measure_sample(sampled([str(file) for file in files]), 10**8)
    assert found["photograph"] > 0.6 * found.total()
    assert found["drawn"] < 0.3 * found.total()

"""Draw a portrait, and a contact sheet of many people, expressions and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.data.synthetic.canvas import Image
from pipelines.data.synthetic.draw import render
from pipelines.data.synthetic.person import Person, stream
from pipelines.data.synthetic.scene import Scene

_COLUMNS = 12


def portrait(namespace: str, index: int, size: int) -> Image:
    """Draw a person of `namespace` facing the camera with a neutral face, RGB uint8, `size` pixels a side."""
    scene = Scene.sample(np.random.default_rng(index), "neutral", "front")
    return render(Person.sample(namespace, 0, index), scene, size).image


def contact_sheet(seed: int = 0, size: int = 128, people: int = 24, grid_people: int = 3) -> Image:
    """Draw a sheet twelve pictures wide, RGB uint8.

    First, one neutral picture of each of `people` people (a multiple of 12) of the dataset with this seed. Then two
    rows for each of the first `grid_people`: expressions from the front, neutral in every pose, the others turned.
    """
    rng = stream("sheet", seed, 0)
    cells: list[Image] = []
    for index in range(people):
        scene = Scene.sample(rng, "neutral", "front")
        cells.append(render(Person.sample("dataset", seed, index), scene, size).image)
    for index in range(grid_people):
        person = Person.sample("dataset", seed, index)
        pairs = [(expression, "front") for expression in EXPRESSIONS] + [("neutral", pose) for pose in POSES]
        pairs += [(e, "left") for e in EXPRESSIONS[1:]] + [(e, "half_right") for e in EXPRESSIONS[1:]]
        cells += [render(person, Scene.sample(rng, *pair), size).image for pair in pairs]
    rows = [np.concatenate(cells[i : i + _COLUMNS], axis=1) for i in range(0, len(cells), _COLUMNS)]
    return np.concatenate(rows, axis=0)


def write_sheet(file: Path, seed: int = 0, size: int = 128) -> None:
    """Write a contact sheet as a picture file."""
    from PIL import Image as Picture

    file.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(contact_sheet(seed, size)).save(file)

"""Curation finds the people of photos that are stored sideways or upside down, and cuts them out upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.core.params import Params, load_params
from pipelines.data.curation.analyse import Photo, analyse_photos
from pipelines.data.curation.write import Chosen, WriteTask, write_chosen
from pipelines.data.faces.analysis import load_analyser
from pipelines.data.faces.captions import load_captions
from tests.pipelines.photos import real_networks

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def params(shared: Path, project: Path) -> Params:
    return load_params(project / "profiles" / "tiny.yaml", real_networks(shared))


@pytest.fixture
def stored(shared: Path, tmp_path: Path) -> list[Path]:
    """Return the files of a photo of 250 x 200 pixels, upright and in three turns (counter-clockwise)."""
    photo = shared / "photos" / "lfw10_krasserm" / "Colin_Powell" / "Colin_Powell_0001.jpg"
    picture = Image.open(photo).convert("RGB").crop((0, 25, 250, 225))
    files = []
    for degrees in (0, 90, 180, 270):
        files.append(tmp_path / f"{degrees:03d}.png")
        picture.rotate(degrees, expand=True).save(files[-1])
    return files


def test_turned_photos_give_the_rows_and_the_cut_of_the_upright_one(
    params: Params, stored: list[Path], tmp_path: Path
) -> None:
    captions = load_captions(params.preprocess.captions)
    photos = [Photo(file.name, file.name, str(file)) for file in stored]
    rows = analyse_photos(
        photos, params.curate, load_analyser(params.preprocess), captions, params.preprocess
    ).to_pylist()
    assert [row["turned"] for row in rows] == [0, 90, 180, 270]
    for name in ("width", "height", "bbox", "embedding", "landmarks", "thumbnail"):
        assert all(row[name] == rows[0][name] for row in rows), name
    box = tuple(rows[0]["bbox"])
    faces = tuple(
        Chosen(
            number,
            str(file),
            str(tmp_path / f"{number}.jpg"),
            row["turned"],
            (20, 10, 200, 190),
            box,
            "a man",
            None,
            "sad",
            0,
            {},
        )
        for number, (file, row) in enumerate(zip(stored, rows, strict=True))
    )
    written = write_chosen(WriteTask(faces, params.model_dump_json(by_alias=True)))
    assert [item.prompt for item in written] == ["a man"] * 4
    cuts = [np.asarray(Image.open(face.file)) for face in faces]
    assert cuts[0].shape == (180, 180, 3)
    assert all((cut == cuts[0]).all() for cut in cuts)

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from model.foundation.edition import EDITIONS
from model.network.known_pictures import known_pictures


def base_in(folder: Path, manifest: object) -> Path:
    for part, config in (("unet", {"sample_size": 16}), ("vae", {"block_out_channels": [1, 2, 3, 4]})):
        (folder / "sd" / part).mkdir(parents=True)
        (folder / "sd" / part / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return folder / "sd"


def test_the_shipped_base_knows_squares_of_one_person_and_two(project: Path) -> None:
    known = known_pictures(project / "model" / "foundation" / "weights" / "sd")
    assert known is not None
    assert (known.people, known.most_people) == ({(64, 64): (1, 2)}, EDITIONS[1].most_people)
    assert known.size_for(2) == (64, 64)


def test_the_second_edition_knows_four_people_and_wider_pictures_for_more(tmp_path: Path) -> None:
    edition = EDITIONS[2]
    shapes = [list(asdict(shape).values()) for shape in edition.people.shapes]
    known = known_pictures(base_in(tmp_path, {"recipe": {"people": {"pairs": 0, "shapes": shapes}}}))
    assert known is not None
    assert known.most_people == edition.most_people == 4
    assert [known.size_for(people) for people in (1, 2, 3, 4)] == [(128, 128), (160, 112), (192, 96), (192, 96)]


def test_a_base_of_single_photos_knows_one_person_and_any_other_says_nothing(tmp_path: Path) -> None:
    own = known_pictures(base_in(tmp_path / "own", {"recipe": {"unet": {}}, "origin": {}}))
    assert own is not None
    assert own.people == {(128, 128): (1,)}
    assert known_pictures(base_in(tmp_path / "parts", {"recipe": {"landmarks": {}}})) is None
    assert known_pictures(tmp_path / "nothing" / "sd") is None
    with pytest.raises(ValueError, match=r"manifest\.json: damaged .*; copy the networks again"):
        known_pictures(base_in(tmp_path / "damaged", "{"))

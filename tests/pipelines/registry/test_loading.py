"""A model loaded in Python: which adapter is taken, that it draws as the command does, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.data.preprocessing.partition import split_of
from pipelines.registry.loading import Model, choose_adapter, load
from tests.guides import commands, section

SHIPPED = "model/foundation/weights/adapter"
PROMPT = "a photo of a person wearing a red t-shirt"


@pytest.fixture(scope="module")
def draw(project: Path) -> Model:
    return load(project / SHIPPED, project / "profiles" / "tiny.yaml")


def test_a_file_its_bytes_and_a_picture_draw_the_same(draw: Model, drawn_people: list[Path]) -> None:
    file = drawn_people[1]  # a PNG, which a picture of PIL becomes, too
    same = [
        np.asarray(draw(PROMPT, [photo], face_prompts=["happy"], seed=3, steps=2).image)
        for photo in (file, str(file), file.read_bytes(), Image.open(file))
    ]
    assert same[0].shape == (64, 64, 3)
    assert all(np.array_equal(one, same[0]) for one in same[1:])
    assert not np.array_equal(np.asarray(draw(PROMPT, [file], face_prompts=["sad"], seed=3, steps=2).image), same[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": ["nowhere.jpg"]}, "nowhere.jpg: no such file; expected a photo of one person"),
        ({"faces": [7]}, "face 1: int; expected a file, its bytes, or a PIL picture"),
        ({"faces": [b"no picture"]}, "face 1: unreadable"),
        ({"faces": [Image.new("RGB", (200, 200))]}, "face 1: no face found"),
        ({"faces": []}, "no reference photo"),
        ({"face_prompts": ["happy and sad"]}, "'happy' and 'sad' are 2 expressions"),
        ({"face_prompts": ["happy", "sad"]}, "2 face prompts for 1 people"),
        ({"boxes": [(0, 0, 2, 1)]}, "expected y0,x0,y1,x1 between 0 and 1"),
        ({"width": 65}, "width 65: expected a multiple of 8"),
    ],
)
def test_what_the_command_refuses_is_refused(
    draw: Model, drawn_people: list[Path], change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"faces": drawn_people[:1], "steps": 1} | change
    with pytest.raises(UserError, match=re.escape(message)):
        draw(PROMPT, **given)


def test_words_that_are_not_drawn_are_in_the_note(draw: Model, drawn_people: list[Path]) -> None:
    picture = draw(PROMPT, drawn_people[:1], face_prompts=["happy, looking up"], steps=1)
    assert "not used: 'looking up'" in picture.note


def test_a_missing_model_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nowhere: no adapter here"):
        load("nowhere", project / "profiles" / "tiny.yaml")


def test_without_a_name_the_trained_adapter_is_taken_and_before_it_the_shipped_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.core.paths.project_root", lambda: tmp_path)
    for folder, why in (
        (SHIPPED, "the one that ships, as there is no models/adapter yet"),
        ("models/adapter", "trained"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}", encoding="utf-8")
        chosen = choose_adapter(None, params, tmp_path)
        assert chosen.folder.resolve() == (tmp_path / folder).resolve()
        assert chosen.origin.startswith(f"{folder}, {why}")


def test_no_training_sees_the_people_of_the_readme(project: Path) -> None:
    # The demo trains on people of the same names, and every other training on those of another namespace.
    lines = "\n".join(commands(section(project / "README.md", "Draw a person")))
    assert "--namespace" not in lines
    params = load_params(project / "profiles" / "tiny.yaml").preprocess
    for person in re.findall(r"demo-\d{5}", section(project / "README.md", "Draw a person")):
        assert split_of(person, params.test_share, params.val_share) == "test"


def test_the_python_of_the_readme_runs(
    project: Path, drawn_people: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", section(project / "README.md", "Draw a person"), re.DOTALL)
    assert len(code) == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((project / "profiles" / "tiny.yaml").read_bytes())
    place = tmp_path / ".dynamicid" / "people" / "demo-00000" / "1.jpg"
    place.parent.mkdir(parents=True)
    place.write_bytes(drawn_people[0].read_bytes())
    exec(code[0].replace("models:/dynamicid@champion", str(project / SHIPPED)), {})
    assert Image.open(tmp_path / "happy.png").size == (64, 64)

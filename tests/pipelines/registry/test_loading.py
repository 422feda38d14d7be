"""A model loaded in Python: which adapter is taken, that it draws as the command does, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.params import dump_params, load_params, overridden_tree
from pipelines.core.sections.operations import Serve
from pipelines.data.preprocessing.partition import split_of
from pipelines.registry.loading import Model, choose_adapter, load
from pipelines.registry.tracking import connect
from pipelines.serving.generation import Generator
from tests.guides import commands, section

SHIPPED = "model/foundation/weights/adapter"
PROMPT = "a photo of a person wearing a red t-shirt"


class Nothing(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def save_config(folder: Path, config: str) -> Path:
    """Write the configuration of an adapter into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config, encoding="utf-8")
    return folder


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


def test_several_photos_of_one_person_are_a_list(draw: Model, drawn_people: list[Path]) -> None:
    one, other = drawn_people
    single, same, mixed = (draw(PROMPT, [given], seed=3, steps=2) for given in (one, [one], [one, other]))
    assert np.array_equal(np.asarray(single.image), np.asarray(same.image))
    assert not np.array_equal(np.asarray(single.image), np.asarray(mixed.image))
    assert single.note == same.note == ""
    assert f"{one} and {other} may show different people: similarity " in mixed.note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": ["nowhere.jpg"]}, "nowhere.jpg: no such file; expected a photo of one person"),
        ({"faces": [7]}, "face 1: int; expected a file, its bytes, or a PIL picture"),
        ({"faces": [b"no picture"]}, "face 1: unreadable"),
        ({"faces": [Image.new("RGB", (200, 200))]}, "face 1: no face found"),
        ({"faces": []}, "no reference photo"),
        ({"faces": [[]]}, "person 1: 0 references; expected 1 to 8"),
        ({"faces": [["nowhere.jpg", 7]]}, "nowhere.jpg: no such file"),
        ({"faces": [[b"no picture", b""]]}, "reference 1 of person 1: unreadable"),
        ({"face_prompts": ["happy and sad"]}, "'happy' and 'sad' are 2 expressions"),
        ({"face_prompts": ["happy", "sad"]}, "2 face prompts for 1 person"),
        ({"boxes": [(0, 0, 2, 1)]}, "expected y0,x0,y1,x1 between 0 and 1"),
        ({"width": 65}, "width 65: expected a multiple of 8"),
        ({"faces": "me.jpg"}, "faces and face_prompts are lists"),
        ({"face_prompts": "happy"}, "faces and face_prompts are lists"),
        ({"step": 4}, "step: no argument of a drawing; did you mean steps?"),
    ],
)
def test_what_the_command_refuses_is_refused(
    draw: Model, drawn_people: list[Path], change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"faces": drawn_people[:1], "steps": 1} | change
    with pytest.raises(UserError, match=re.escape(message)):
        draw(PROMPT, **given)


def test_a_quick_evaluation_draws_no_other_pictures(project: Path, draw: Model) -> None:
    quick = load_params(project / "profiles" / "tiny.yaml", ["evaluate.steps=4"])
    generator = Generator(draw.generator._pipeline, None, quick)
    assert generator.sampling == draw.generator.sampling
    assert generator.sampling.steps == 20
    older = quick.model_copy(update={"serve": Serve()})
    assert Generator(draw.generator._pipeline, None, older).sampling.steps == 4, "of a file that has no serve.steps"


def test_words_that_are_not_drawn_are_in_the_note(draw: Model, drawn_people: list[Path]) -> None:
    picture = draw(PROMPT, drawn_people[:1], face_prompts=["happy, looking up"], steps=1)
    assert "not used: 'looking up'" in picture.note


def test_a_missing_model_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nowhere: no adapter here"):
        load("nowhere", project / "profiles" / "tiny.yaml")


def test_an_adapter_of_another_base_is_refused(project: Path, tmp_path: Path) -> None:
    other = shutil.copytree(project / SHIPPED, tmp_path / "adapter")
    config = json.loads((other / "config.json").read_text())
    config["base"]["fingerprint"] = "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"fingerprint 000000000000.*base\.allow_other"):
        load(other, project / "profiles" / "tiny.yaml")


def test_without_a_name_the_trained_adapter_is_taken_and_before_it_the_shipped_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.core.paths.project_root", lambda: tmp_path)
    for folder, why in (
        (SHIPPED, "the one that ships, as there is no models/adapter yet"),
        ("models/adapter", "trained in this checkout"),
    ):
        save_config(tmp_path / folder, "{}")
        chosen = choose_adapter(None, params, tmp_path)
        assert chosen.folder.resolve() == (tmp_path / folder).resolve()
        assert re.fullmatch(rf"{folder}, [0-9a-f]{{12}}, {why}", chosen.origin)


def test_a_folder_is_named_with_its_hash(project: Path, tmp_path: Path) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    first = choose_adapter(str(save_config(tmp_path / "adapter", "{}")), params, tmp_path)
    assert first.origin.startswith(f"{tmp_path / 'adapter'}, ")
    save_config(tmp_path / "adapter", '{"other": 1}')
    assert choose_adapter(str(tmp_path / "adapter"), params, tmp_path).origin != first.origin


def test_an_alias_is_named_by_its_version(project: Path, mlflow_checkout: Path, tmp_path: Path) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    connect(mlflow_checkout)
    made_with = tmp_path / "params.yaml"
    quick = ("evaluate.steps=7", "evaluate.guidance=4.5", "serve.steps=null", "base.resolution=128")
    dump_params(overridden_tree(project / "profiles" / "tiny.yaml", quick), made_with)
    for text in ("{}", '{"second": 1}'):
        with mlflow.start_run():
            mlflow.pyfunc.log_model(
                name="model",
                python_model=Nothing(),
                artifacts={"adapter": str(save_config(tmp_path / "adapter", text)), "params": str(made_with)},
                pip_requirements=[],
                registered_model_name="dynamicid",
            )
    mlflow.MlflowClient().set_registered_model_alias("dynamicid", "champion", "2")
    chosen = choose_adapter("models:/dynamicid@champion", params, mlflow_checkout)
    assert chosen.origin == "dynamicid, version 2, the champion when it was loaded"
    assert (chosen.name, chosen.version) == ("dynamicid", "2")
    assert (chosen.folder / "config.json").read_text() == '{"second": 1}'
    first = choose_adapter("models:/dynamicid/1", params, mlflow_checkout, ("evaluate.guidance=2",))
    assert first.origin == "dynamicid, version 1"
    drawn = [(one.params.serve.steps, one.params.evaluate.guidance) for one in (chosen, first)]
    assert drawn == [(7, 4.5), (7, 2.0)], "as the version was registered, but for what was asked now"
    assert chosen.params.base == params.base, "where the networks are is stated by the parameters here"
    with pytest.raises(UserError, match="no such version in the registry; there are v1, v2"):
        choose_adapter("models:/dynamicid/7", params, mlflow_checkout)


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

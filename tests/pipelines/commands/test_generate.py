"""`dynamicid generate`: what it draws, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from model.foundation.random_models import save_random_models
from pipelines.cli import app
from pipelines.commands.generate import default_adapter, split_reference
from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from tests.processes import dynamicid


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, random_home: Callable[[Path], Path]) -> Path:
    """A folder with random base models, an adapter on them, and parameters that name the real face networks."""
    return random_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def photos(shared: Path) -> list[Path]:
    people = shared / "photos" / "lfw10_krasserm"
    return [sorted((people / name).glob("*.jpg"))[0] for name in ("Ariel_Sharon", "Colin_Powell")]


def generate(home: Path, *arguments: str | Path) -> Result:
    before = Path.cwd()
    os.chdir(home)
    try:
        return CliRunner().invoke(app, ["generate", *map(str, arguments)])
    finally:
        os.chdir(before)


@pytest.mark.realdata
def test_two_people_with_boxes_and_face_prompts(home: Path, photos: list[Path], tmp_path: Path) -> None:
    def draw(out: Path, *more: str | Path) -> np.ndarray:
        references = ["--reference", f"{photos[0]}@0,0,1,0.5", "--reference", f"{photos[1]}@0,0.5,1,1"]
        done = generate(home, *references, "--prompt", "two men", "--out", out, *more)
        assert done.exit_code == 0, done.output
        return np.asarray(Image.open(out))

    plain = draw(tmp_path / "new" / "plain.png")
    assert plain.shape == (64, 64, 3)
    assert np.array_equal(draw(tmp_path / "again.png"), plain)
    assert not np.array_equal(draw(tmp_path / "seed.png", "--seed", "1"), plain)
    asked = ["--face-prompt", "happy, turned to the left", "--face-prompt", ""]
    map_file = tmp_path / "gate.png"
    assert not np.array_equal(draw(tmp_path / "asked.png", *asked, "--gate-map", map_file), plain)
    gate = np.asarray(Image.open(map_file))
    assert gate.shape == (64, 64)
    assert 0 < gate.mean() < 255


@pytest.mark.realdata
def test_a_registered_model_draws_the_same(
    home: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from pipelines.registry.log_model import CODE
    from pipelines.registry.settings import connect

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(home)
    connect(home)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(CODE),
            artifacts={"adapter": str(home / "models" / "adapter"), "params": str(home / "params.yaml")},
            pip_requirements=[],
            registered_model_name="dynamicid",
        )
    mlflow.MlflowClient().set_registered_model_alias("dynamicid", "champion", "1")
    common = ["--reference", photos[0], "--prompt", "a man", "--face-prompt", "happy"]
    for out, more in (("folder.png", []), ("registry.png", ["--adapter", "models:/dynamicid@champion"])):
        done = generate(home, *common, "--out", tmp_path / out, *more)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "folder.png").read_bytes() == (tmp_path / "registry.png").read_bytes()
    done = generate(home, *common, "--out", tmp_path / "x.png", "--adapter", "models:/dynamicid@nobody")
    assert isinstance(done.exception, UserError)
    assert "models:/dynamicid@nobody" in str(done.exception)


@pytest.mark.realdata
def test_photos_without_one_face_are_named(home: Path, photos: list[Path], tmp_path: Path) -> None:
    pictures = [Image.open(photo).convert("RGB").resize((250, 250)) for photo in photos]
    both = Image.new("RGB", (500, 250))
    for column, picture in enumerate(pictures):
        both.paste(picture, (250 * column, 0))
    both.save(tmp_path / "both.png")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    for name, message in (
        ("both.png", "both.png: 2 faces found; crop the photo"),
        ("noise.png", "noise.png: no face found; use a photo"),
        ("text.jpg", "text.jpg: unreadable (no picture of a known format); use a photo"),
    ):
        done = generate(home, "--reference", tmp_path / name, "--prompt", "a man", "--out", tmp_path / "x.png")
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)
        assert not (tmp_path / "x.png").exists()


@pytest.mark.realdata
def test_an_adapter_without_imr_takes_no_face_prompt(home: Path, photos: list[Path], tmp_path: Path) -> None:
    common = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png", "--adapter", "anchored"]
    done = generate(home, *common, "--face-prompt", "happy")
    assert "needs an adapter with an IMR" in str(done.exception)
    assert generate(home, *common).exit_code == 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["--reference", "nowhere.jpg@0,0,1"], "is not a box y0,x0,y1,x1"),
        (["--reference", "{0}@0,0,1.5,1"], "box 0,0,1.5,1: expected y0,x0,y1,x1 between 0 and 1"),
        (["--reference", "{0}@0,0,1,0.5", "--reference", "{1}"], "1 boxes for 2 people"),
        (["--reference", "{0}", "--adapter", "nowhere"], "nowhere: no adapter here"),
        (["--reference", "{0}", "--set", "base.pipeline=nowhere"], "nowhere: no such folder"),
        (["--reference", "{0}", "--out", "x.docx"], ".docx is no picture format"),
        (["--reference", "{0}", "--guidance", "inf"], "guidance inf: expected a finite number"),
        (["--reference", "{0}", "--set", "evaluate.guidance=.nan"], "evaluate.guidance = nan"),
    ],
)
def test_wrong_use_is_one_line(
    home: Path, photos: list[Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(*photos) for argument in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "x.png")]
    done = generate(home, *given, "--prompt", "a man", *out)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("face_prompt", "kept"),
    [("ecstatic, facing the camera", "expression"), ("sad", "pose"), ("sad, turned to the left", None), ("", None)],
)
def test_what_a_face_prompt_leaves_open_is_said(
    home: Path, photos: list[Path], tmp_path: Path, face_prompt: str, kept: str | None
) -> None:
    common = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png", "--steps", "1"]
    done = generate(home, *common, "--face-prompt", face_prompt)
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "it stays that of the reference" in line]
    assert len(said) == (kept is not None)
    if kept is not None:
        assert f"{face_prompt!r} names no {kept} (" in said[0]


@pytest.mark.realdata
def test_an_adapter_of_another_base_is_refused(home: Path, photos: list[Path], tmp_path: Path) -> None:
    other = save_random_models(tmp_path / "other", seed=1)
    done = generate(
        home,
        *("--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png"),
        *("--set", f"base.pipeline={other.pipeline}"),
    )
    assert isinstance(done.exception, UserError)
    assert "/sd with fingerprint" in str(done.exception)


def test_before_anything_is_trained_the_shipped_adapter_draws(
    project: Path, drawn_people: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        elsewhere.setattr("pipelines.core.paths.project_root", lambda: tmp_path)
        shipped = default_adapter(params)
        assert shipped == params.evaluate.shipped_adapter
        (tmp_path / "models" / "adapter").mkdir(parents=True)
        (tmp_path / "models" / "adapter" / "config.json").write_text("{}")
        assert default_adapter(params) == "models/adapter"

    def draw(name: str, face_prompt: str, *more: str) -> np.ndarray:
        common = [
            "--reference",
            drawn_people[0],
            "--prompt",
            "a photo of a person wearing a red shirt, blue background",
        ]
        chosen = ["--adapter", shipped, "--params", project / "profiles" / "tiny.yaml"]
        done = generate(tmp_path, *common, *chosen, "--face-prompt", face_prompt, "--out", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
        return np.asarray(Image.open(tmp_path / name)).astype(float)

    left, right = draw("left.png", "turned to the left"), draw("right.png", "turned to the right")
    assert left.shape == (64, 64, 3)
    assert np.abs(left - right).mean() > 2
    rescaled, plain = (
        draw(f"{value}.png", "", "--set", "evaluate.guidance=6", "--set", f"evaluate.guidance_rescale={value}")
        for value in (0.7, 0.0)
    )
    assert rescaled.std() < plain.std(), "strong guidance adds contrast, which the setting takes back"


def test_no_library_has_a_word_between_our_lines(project: Path, drawn_people: list[Path], tmp_path: Path) -> None:
    common = ("--reference", drawn_people[0], "--prompt", "a photo of a person", "--face-prompt", "sad", "--steps", "2")
    chosen = ("--params", project / "profiles" / "tiny.yaml", "--out", tmp_path / "x.png")
    done = dynamicid("generate", *common, *chosen, cwd=tmp_path)
    assert json.loads(done.stdout) == {"picture": str(tmp_path / "x.png"), "seed": 0}
    lines = [line for line in re.split(r"[\r\n]", done.stderr) if line.strip()]
    assert [line for line in lines if not line.startswith(("generate: ", "drawing: "))] == []
    assert any("names no pose" in line for line in lines)


def test_references_are_taken_apart(tmp_path: Path) -> None:
    assert split_reference("a.jpg") == (Path("a.jpg"), None)
    assert split_reference("a@b.jpg@0,0.1,0.5,1") == (Path("a@b.jpg"), (0.0, 0.1, 0.5, 1.0))
    odd = tmp_path / "me@home.jpg"
    odd.write_bytes(b"")
    assert split_reference(str(odd)) == (odd, None)

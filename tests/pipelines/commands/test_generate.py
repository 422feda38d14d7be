"""`dynamicid generate`: the pictures it writes, and its errors."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from model.foundation.random_models import save_random_models
from pipelines.cli import app
from pipelines.commands.generate import split_reference
from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256
from pipelines.core.params import dump_params, overridden_tree
from tests.processes import dynamicid

SHIPPED = "model/foundation/weights/adapter"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, random_home: Callable[[Path], Path]) -> Path:
    """A folder with random base models, an adapter for them, and parameters that name the real face networks."""
    return random_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def photos(shared: Path) -> list[Path]:
    people = shared / "photos" / "lfw10_krasserm"
    return [sorted((people / name).glob("*.jpg"))[0] for name in ("Ariel_Sharon", "Colin_Powell")]


def generate(home: Path, *arguments: str | Path) -> Result:
    with contextlib.chdir(home):
        return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def refused(done: Result) -> str:
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


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
def test_words_of_a_face_prompt_that_are_not_used_are_named(home: Path, photos: list[Path], tmp_path: Path) -> None:
    given = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "a.png", "--face-prompt"]
    done = generate(home, *given, "sad, looking up")
    assert done.exit_code == 0, done.output
    assert "not used: 'looking up'" in done.stderr
    assert "not used" not in generate(home, *given, "sad").stderr


@pytest.mark.realdata
def test_a_registered_model_draws_the_same(
    home: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from pipelines.registry.log_model import CODE
    from pipelines.registry.tracking import connect

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
    origins = []
    # A version draws as it was registered, whatever is evaluated here now.
    quick = tmp_path / "quick.yaml"
    dump_params(overridden_tree(home / "params.yaml", ("serve.steps=1", "evaluate.guidance=7")), quick)
    champion = ["--adapter", "models:/dynamicid@champion", "--params", quick]
    for out, more in (("folder.png", []), ("registry.png", champion)):
        done = generate(home, *common, "--out", tmp_path / out, *more)
        assert done.exit_code == 0, done.output
        origins.append(json.loads(done.stdout)["adapter_origin"])
    assert (tmp_path / "folder.png").read_bytes() == (tmp_path / "registry.png").read_bytes()
    assert re.fullmatch("models/adapter, [0-9a-f]{12}, trained in this checkout", origins[0])
    assert origins[1] == "dynamicid, version 1, the champion when it was loaded"
    assert "generate: drawing with dynamicid, version 1, the champion when it was loaded, in 2 steps" in done.stderr
    done = generate(home, *common, "--out", tmp_path / "asked.png", *champion, "--set", "serve.steps=3")
    assert "in 3 steps" in done.stderr
    done = generate(home, *common, "--out", tmp_path / "x.png", "--adapter", "models:/dynamicid@missing")
    assert "models:/dynamicid@missing" in refused(done)


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
        ("both.png", "both.png: 2 faces found; say which one is meant by its number from the left (1 to 2)"),
        ("noise.png", "noise.png: no face found; use a photo"),
        ("text.jpg", "text.jpg: unreadable (no picture of a known format); use a photo"),
    ):
        done = generate(home, "--reference", tmp_path / name, "--prompt", "a man", "--out", tmp_path / "x.png")
        assert message in refused(done)
        assert not (tmp_path / "x.png").exists()


@pytest.mark.realdata
def test_an_adapter_without_imr_takes_no_face_prompt(home: Path, photos: list[Path], tmp_path: Path) -> None:
    common = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png", "--adapter", "anchored"]
    assert "needs an adapter with an IMR" in refused(generate(home, *common, "--face-prompt", "happy"))
    assert generate(home, *common).exit_code == 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["--reference", "nowhere.jpg@0,0,1"], "is not a box y0,x0,y1,x1"),
        (["--reference", "{0}@0,0,1.5,1"], "box 0,0,1.5,1: expected y0,x0,y1,x1 between 0 and 1"),
        (["--reference", "{0}@0,0,1,0.5", "--reference", "{1}"], "1 box for 2 people"),
        (["--reference", "{0}", "--adapter", "nowhere"], "nowhere: no adapter here"),
        (["--reference", "{0}", "--set", "base.pipeline=nowhere"], "nowhere: no such folder"),
        (["--reference", "{0}", "--out", "x.docx"], ".docx is not a picture format"),
        (["--reference", "{0}", "--out", "{0}/x.png"], "cannot be made (File exists)"),
        (["--reference", "{0}", "--gate-map", "{0}/more/x.png"], "cannot be made (Not a directory)"),
        (["--reference", "{0}", "--guidance", "inf"], "guidance inf: expected a finite number"),
        (["--reference", "{0}", "--set", "evaluate.guidance=.nan"], "evaluate.guidance = nan"),
    ],
)
def test_wrong_use_is_one_line(
    home: Path, photos: list[Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(*photos) for argument in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "x.png")]
    error = refused(generate(home, *given, "--prompt", "a man", *out))
    assert message in error
    assert "\n" not in error


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("face_prompt", "kept"),
    [("ecstatic, facing the camera", "expression"), ("sad", "pose"), ("sad, turned to the left", None), ("", None)],
)
def test_an_open_expression_or_pose_is_reported(
    home: Path, photos: list[Path], tmp_path: Path, face_prompt: str, kept: str | None
) -> None:
    common = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png", "--steps", "1"]
    done = generate(home, *common, "--face-prompt", face_prompt)
    assert done.exit_code == 0, done.output
    messages = [line for line in done.stderr.splitlines() if "it stays that of the reference" in line]
    assert len(messages) == (kept is not None)
    if kept is not None:
        assert f"{face_prompt!r} names no {kept} (" in messages[0]


@pytest.mark.realdata
def test_an_adapter_of_another_base_is_refused(home: Path, photos: list[Path], tmp_path: Path) -> None:
    other = save_random_models(tmp_path / "other", seed=1)
    common = ["--reference", photos[0], "--prompt", "a man", "--out", tmp_path / "x.png"]
    assert "/sd with fingerprint" in refused(generate(home, *common, "--set", f"base.pipeline={other.pipeline}"))


def test_the_shipped_adapter_draws_with_poses_and_rescaled_guidance(
    project: Path, drawn_people: list[Path], tmp_path: Path
) -> None:
    def draw(name: str, face_prompt: str, *more: str) -> np.ndarray:
        prompt = "a photo of a person wearing a red shirt, blue background"
        common = ["--reference", drawn_people[0], "--prompt", prompt, "--face-prompt", face_prompt]
        chosen = ["--adapter", SHIPPED, "--params", project / "profiles" / "tiny.yaml", "--out", tmp_path / name]
        done = generate(tmp_path, *common, *chosen, *more)
        assert done.exit_code == 0, done.output
        return np.asarray(Image.open(tmp_path / name)).astype(float)

    left, right = draw("left.png", "turned to the left"), draw("right.png", "turned to the right")
    assert left.shape == (64, 64, 3)
    assert np.abs(left - right).mean() > 2
    rescaled, plain = (
        draw(f"{value}.png", "", "--set", "evaluate.guidance=6", "--set", f"evaluate.guidance_rescale={value}")
        for value in (0.7, 0.0)
    )
    assert rescaled.std() < plain.std(), "guidance_rescale reduces the contrast that strong guidance adds"


def test_no_library_prints_between_our_lines(project: Path, drawn_people: list[Path], tmp_path: Path) -> None:
    common = ("--reference", drawn_people[0], "--prompt", "a photo of a person", "--face-prompt", "sad", "--steps", "2")
    chosen = ("--adapter", SHIPPED, "--params", project / "profiles" / "tiny.yaml", "--out", tmp_path / "x.png")
    done = dynamicid("generate", *common, *chosen, cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "picture": str(tmp_path / "x.png"),
        "seed": 0,
        "adapter": str(project / SHIPPED),
        "adapter_origin": f"{SHIPPED}, {folder_sha256(project / SHIPPED)[:12]}",
        "steps": 2,
    }
    lines = [line for line in re.split(r"[\r\n]", done.stderr) if line.strip()]
    assert [line for line in lines if not line.startswith(("generate: ", "drawing: "))] == []
    assert any("names no pose" in line for line in lines)


def test_references_are_split_into_file_and_box(tmp_path: Path) -> None:
    assert split_reference("a.jpg") == ([(Path("a.jpg"), None)], None)
    assert split_reference("a@b.jpg@0,0.1,0.5,1") == ([(Path("a@b.jpg"), None)], (0.0, 0.1, 0.5, 1.0))
    odd = tmp_path / "me@home.jpg"
    odd.write_bytes(b"")
    assert split_reference(str(odd)) == ([(odd, None)], None)


def test_size_number_sampler_and_the_face_that_is_meant(
    project: Path, drawn_people: list[Path], tmp_path: Path
) -> None:
    def draw(name: str, *more: str | Path, prompt: str = "a photo of a person wearing a red shirt") -> Result:
        chosen = ["--adapter", project / "model" / "foundation" / "weights" / "adapter", "--steps", "2"]
        params = ["--params", project / "profiles" / "tiny.yaml"]
        return generate(tmp_path, *more, "--prompt", prompt, *chosen, *params, "--out", tmp_path / name)

    def picture(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / name)).astype(int)

    first, second = (("--reference", photo) for photo in drawn_people)
    assert draw("one.png", *first, "--seed", "6").exit_code == 0
    several = draw("many.png", *first, "--seed", "5", "--number", "2")
    assert [made["seed"] for made in json.loads(several.stdout)["pictures"]] == [5, 6]
    assert np.array_equal(picture("many-2.png"), picture("one.png"))
    assert not (tmp_path / "many.png").exists()
    assert draw("dpm.png", *first, "--seed", "6", "--sampler", "dpm").exit_code == 0
    assert not np.array_equal(picture("dpm.png"), picture("one.png"))
    assert draw("not.png", *first, "--seed", "6", "--negative-prompt", "red").exit_code == 0
    assert not np.array_equal(picture("not.png"), picture("one.png"))

    wide = draw("wide.png", *first, "--width", "96")
    assert picture("wide.png").shape == (64, 96, 3)
    assert "not trained on 96 x 64 pixels" in wide.stderr
    assert "it knows 64 x 64" in wide.stderr
    assert "width 90: expected a multiple of 8 from 32 to 4096" in refused(draw("x.png", *first, "--width", "90"))
    assert "512 x 64 pixels: more than 4 times the 64 x 64" in refused(draw("x.png", *first, "--width", "512"))
    assert "sampler heun: expected one of ddim, dpm, euler, lcm" in refused(draw("x.png", *first, "--sampler", "heun"))
    crowd = refused(draw("x.png", *first, *second, *first))
    assert "3 people: the base was trained on 2 in a picture at most" in crowd
    assert "everybody is drawn in one picture, not in a window each: prompt 'a photo of a person" in crowd
    together = "a photo of three people, blue background"
    three = draw("three.png", *first, *second, *first, prompt=together)
    assert three.exit_code == 0, three.output
    assert "not trained on" not in three.stderr
    assert picture("three.png").shape == (64, 160, 3)
    square = draw("two.png", *first, *second, "--width", "64", prompt="a photo of two people")
    assert "not in a window each: windows for 2 people in a picture 1 times as wide as high" in square.stderr
    assert picture("two.png").shape == (64, 64, 3)
    boxes = [f"{drawn_people[0]}@0.1,0.1,0.9,0.6", f"{drawn_people[1]}@0.5,0.5,0.6,0.6"]
    poor = draw("poor.png", "--reference", boxes[0], "--reference", boxes[1])
    assert poor.exit_code == 0
    assert "boxes 1 and 2 overlap" in poor.stderr
    assert "box 2 is too small for a face of this base, which needs 11 pixels a side" in poor.stderr

    both = Image.new("RGB", (512, 256))
    for column, photo in enumerate(drawn_people):
        both.paste(Image.open(photo).convert("RGB").resize((256, 256)), (256 * column, 0))
    both.save(tmp_path / "both.png")
    asked = refused(draw("x.png", "--reference", tmp_path / "both.png"))
    assert "2 faces found; say which one is meant by its number from the left (1 to 2)" in asked
    assert "2 faces found; there is no number 3" in refused(draw("x.png", "--reference", f"{tmp_path / 'both.png'}#3"))
    for number, photo in enumerate(drawn_people, 1):
        assert draw(f"cut-{number}.png", "--reference", f"{tmp_path / 'both.png'}#{number}").exit_code == 0
        assert draw(f"alone-{number}.png", "--reference", photo).exit_code == 0
    gaps = [
        [np.abs(picture(f"cut-{one}.png") - picture(f"alone-{other}.png")).mean() for other in (1, 2)] for one in (1, 2)
    ]
    assert gaps[0][0] < gaps[0][1]
    assert gaps[1][1] < gaps[1][0]


def test_files_with_a_sign_in_their_name_are_files(tmp_path: Path) -> None:
    (tmp_path / "a#2").touch()
    assert split_reference(f"{tmp_path}/a#2") == ([(tmp_path / "a#2", None)], None)
    assert split_reference(f"{tmp_path}/b#2") == ([(tmp_path / "b", 2)], None)
    assert split_reference("b.jpg#12@0,0,1,0.5") == ([(Path("b.jpg"), 12)], (0.0, 0.0, 1.0, 0.5))
    assert split_reference("b#x.jpg") == ([(Path("b#x.jpg"), None)], None)


def test_references_of_one_person_are_joined_by_a_plus(tmp_path: Path) -> None:
    box = (0.0, 0.0, 1.0, 0.5)
    assert split_reference("a.jpg+b.jpg#2@0,0,1,0.5") == ([(Path("a.jpg"), None), (Path("b.jpg"), 2)], box)
    for name in ("me+you.jpg", "c++.png"):
        (tmp_path / name).touch()
    both, other = tmp_path / "me+you.jpg", tmp_path / "c++.png"
    assert split_reference(str(both)) == ([(both, None)], None)
    assert split_reference(f"{both}+{other}#3@0,0,1,0.5") == ([(both, None), (other, 3)], box)
    assert split_reference(f"x.jpg+{other}") == ([(Path("x.jpg"), None), (other, None)], None)


def test_strength_angles_and_a_driving_photo(project: Path, drawn_people: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "nobody.png")
    both = [np.asarray(Image.open(photo).convert("RGB").resize((256, 256))) for photo in drawn_people]
    Image.fromarray(np.concatenate(both, axis=1)).save(tmp_path / "both.png")

    def draw(*more: str) -> Result:
        given = ["--reference", drawn_people[0], "--prompt", "a photo", "--steps", "2", "--out", tmp_path / "a.png"]
        chosen = ["--adapter", project / SHIPPED, "--params", project / "profiles" / "tiny.yaml"]
        return generate(tmp_path, *given, *chosen, *more)

    done = draw("--face-prompt", "happy", "--strength", "1.2", "--yaw", "-20", "--pitch", "15")
    assert done.exit_code == 0, done.output
    warning = " ".join(done.stderr.split())
    assert "strength 1.2 is beyond what the adapter knows, 0 to 1" in warning
    assert "pitch 15 has hardly an effect with this adapter" in warning
    done = draw("--driving", f"{tmp_path}/both.png#2", "--strength", "")
    assert done.exit_code == 0, done.output
    assert "nobody.png: no face found" in refused(draw("--driving", str(tmp_path / "nobody.png")))
    assert "both.png: 2 faces found; say which one is meant" in refused(draw("--driving", f"{tmp_path}/both.png"))
    assert "there is no number 3 from the left" in refused(draw("--driving", f"{tmp_path}/both.png#3"))
    assert "--driving no.png: no such file" in refused(draw("--driving", "no.png"))
    assert "a driving photo and the face prompt" in refused(
        draw("--driving", str(drawn_people[1]), "--face-prompt", "happy")
    )
    assert "yaw: 'left'; expected a number" in refused(draw("--yaw", "left"))
    assert "yaw 100: expected a number from -90 to 90 degrees" in refused(draw("--yaw", "100"))
    assert "roll 10: to this adapter every face is upright" in refused(draw("--roll", "10"))


def test_several_references_of_one_person_draw_and_others_are_named(
    project: Path, drawn_people: list[Path], tmp_path: Path
) -> None:
    from pipelines.data.synthetic.sheet import portrait

    Image.fromarray(portrait("tests", 0, 256)).save(tmp_path / "me+1.png")
    Image.fromarray(portrait("tests", 0, 224)).save(tmp_path / "2.png")
    Image.fromarray(portrait("tests", 1, 256)).save(tmp_path / "other.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "nobody.png")
    mine = f"{tmp_path}/me+1.png+{tmp_path}/2.png"

    def draw(name: str, *references: str, more: tuple[str, ...] = ()) -> Result:
        given = [part for one in references for part in ("--reference", one)]
        chosen = ["--adapter", project / SHIPPED, "--params", project / "profiles" / "tiny.yaml", "--steps", "2"]
        return generate(tmp_path, *given, "--prompt", "a photo", *chosen, "--out", tmp_path / name, *more)

    done = draw("one.png", mine, more=("--face-prompt", "happy"))
    assert done.exit_code == 0, done.output
    assert "different people" not in done.stderr
    done = draw(
        "joined.png",
        f"{mine}@0,0,1,0.5",
        f"{tmp_path}/other.png@0,0.5,1,1",
        more=("--set", "serve.combine=concatenate"),
    )
    assert done.exit_code == 0, done.output
    done = draw("mixed.png", f"{mine}+{tmp_path}/other.png")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"me\+1\.png, .*2\.png and .*other\.png may show different people: similarity -?0\.\d\d, below 0\.46, "
        "which photos of one person reach to tiny_faces",
        " ".join(done.stderr.split()),
    )
    assert "nobody.png: no face found" in refused(draw("x.png", f"{mine}+{tmp_path}/nobody.png"))
    assert "no.png: no such file (in " in refused(draw("x.png", f"{mine}+no.png"))
    assert "person 1: 10 references; expected 1 to 8" in refused(draw("x.png", "+".join([mine] * 5)))
    two = ("--face-prompt", "happy", "--face-prompt", "sad")
    assert "2 face prompts for 1 person: give none or one per person" in refused(draw("x.png", mine, more=two))

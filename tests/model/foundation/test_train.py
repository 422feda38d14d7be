"""The whole recipe, with one or two steps per part, makes complete weights, resumes, and refuses other recipes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.foundation import clip, expression_pose, judge, landmarks, manifest, recogniser, vae
from model.foundation.edition import EDITIONS, Edition
from model.foundation.measure import Sample
from model.foundation.parts import PARTS, RECIPE
from model.foundation.render import render_people
from model.foundation.shipped_adapter import ship
from model.foundation.text_to_image import Sampling
from model.foundation.train import TrainingResult, train_foundation
from model.network.adapter import Adapter
from pipelines.data.synthetic.foundation_people import draw

# One step of most parts, two of the longest.
SCALE = 0.0005
SAMPLE = Sample(people=4, photos=5, size=64, groups=0.2, drawn=Sampling(pictures=2, steps=1, guidance=1.0))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (landmarks, recogniser, judge, expression_pose):
            patch.setattr(module, "BATCH", 4)
        yield


def few(edition: Edition) -> Edition:
    """Return an edition with small batches."""
    return replace(
        edition,
        autoencoder=replace(edition.autoencoder, batch=8),
        clip=replace(edition.clip, batch=4, groups=min(edition.clip.groups, 3)),
        unet=replace(edition.unet, batch=6),
    )


def train(work: Path, weights: Path, parts: list[str] | None = None, scale: float = SCALE) -> TrainingResult:
    return train_foundation(
        work, weights, draw, parts=parts, steps_scale=scale, workers=1, sample=SAMPLE, edition=few(EDITIONS[1])
    )


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five drawn people."""
    work = tmp_path_factory.mktemp("crowd")
    render_people(work / "people", draw, people=5, photos=7, size=64, workers=1, groups=0.3)
    return work


@pytest.fixture(scope="module")
def trained(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, TrainingResult]:
    """(work, weights, result) of a whole training."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(crowd / "people", root / "work" / "people")
    return root / "work", root / "weights", train(root / "work", root / "weights")


def test_the_whole_recipe_leaves_a_folder_that_checks(trained: tuple[Path, Path, TrainingResult]) -> None:
    work, weights, done = trained
    assert done.missing == ()
    assert done.manifest == weights / "manifest.json"
    assert manifest.check(weights) == []
    known = manifest.read(weights)
    assert tuple(known["recipe"]) == tuple(known["figures"]) == tuple(part for part in PARTS if part != "transformer")
    assert known["recipe"]["people"]["people"] == 5
    assert known["recipe"]["judge"] == {"steps": 1, "seed": 77}
    assert known["figures"] == json.loads(json.dumps(done.figures))
    # Figures also include those that the written files reach on unseen people.
    assert 0 <= known["figures"]["autoencoder"]["expression_rebuilt"] <= 1
    assert 0 <= known["figures"]["unet"]["face_found"] <= 1
    assert [part.name for part in RECIPE if not (work / part.name / "figures.json").is_file()] == ["transformer"]


def test_nothing_in_the_folder_names_this_machine_or_needs_pickle(trained: tuple[Path, Path, TrainingResult]) -> None:
    work, weights, _ = trained
    for file in weights.rglob("*"):
        assert file.suffix in {"", ".json", ".onnx", ".safetensors", ".txt"}
        if file.is_file():
            assert str(work.parent).encode() not in file.read_bytes()
            assert b"_name_or_path" not in file.read_bytes()


def test_the_folder_loads_where_the_profile_looks(trained: tuple[Path, Path, TrainingResult]) -> None:
    from model.network.base import load_base
    from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser
    from pipelines.evaluation.text_judge import TextJudge

    _, weights, _ = trained
    base = load_base(weights / "sd", weights / "image_encoder")
    latents = base.encode_images(np.zeros((1, 64, 64, 3), np.uint8))
    assert base.decode_latents(latents).shape == (1, 64, 64, 3)
    states, _ = base.encode_text(["a photo of a person"])
    assert base.unet(latents, torch.tensor([10]), states).sample.shape == latents.shape
    assert base.encode_crops(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 65, clip.WIDTH)
    assert TextJudge(weights / "clip").texts(["sad"]).shape == (1, clip.WIDTH)
    pack = InsightFaceAnalyser(weights / "insightface" / "models" / "tiny_faces", det_sizes=(64,))
    assert pack.embed([np.zeros((64, 64, 3), np.uint8)], [np.eye(5, 2) * 9 + 20]).shape == (1, 512)


def test_a_finished_training_is_not_repeated(trained: tuple[Path, Path, TrainingResult]) -> None:
    work, weights, done = trained
    before = {file: file.stat().st_mtime_ns for file in weights.rglob("*")}
    again = train(work, weights)
    assert {file: file.stat().st_mtime_ns for file in weights.rglob("*")} == before
    assert json.loads(json.dumps(again.figures)) == json.loads(json.dumps(done.figures))


def test_people_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"people": 5, "photos": 2, "size": 64, "seed": 0, "pairs": 2}
    part = replace(RECIPE[0], settings=lambda _: few)
    monkeypatch.setattr("model.foundation.train.RECIPE", (part, *RECIPE[1:]))
    first, again = (train(tmp_path / "work", tmp_path / "weights", ["people"]) for _ in range(2))
    assert first.figures["people"] == again.figures["people"] == {"photos": 10, "pairs": 2, "people_held_out": 1}
    assert json.loads((tmp_path / "work" / "people" / "recipe.json").read_text()) == {"settings": few}


@pytest.mark.nightly
def test_a_retrained_part_keeps_the_adapter_that_matches(
    trained: tuple[Path, Path, TrainingResult], tmp_path: Path, make_adapter: Callable[..., Adapter]
) -> None:
    work, weights = tmp_path / "work", tmp_path / "weights"
    shutil.copytree(trained[0], work)
    shutil.copytree(trained[1], weights)
    make_adapter(weights, tmp_path / "adapter")
    ship(tmp_path / "adapter", weights, {"profile": "showcase"}, {"s": 0.7})
    assert train(work, weights).figures["adapter"] == {"s": 0.7}
    shutil.rmtree(work / "landmarks")
    train(work, weights, ["landmarks"], scale=2 * SCALE)
    known = manifest.read(weights)
    assert known["recipe"]["adapter"]["profile"] == "showcase"
    assert known["figures"]["adapter"] == {"s": 0.7}
    assert known["recipe"]["landmarks"]["steps"] == 2
    assert manifest.check(weights) == []


@pytest.mark.nightly
def test_a_killed_training_ends_with_the_same_bytes(
    trained: tuple[Path, Path, TrainingResult], crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(crowd / "people", tmp_path / "people")
    weights = tmp_path / "weights"
    fit = vae.fit

    def killed_after_a_step(module, losses, folder, **settings):  # type: ignore[no-untyped-def]
        def until(number: int, rng: np.random.Generator):  # type: ignore[no-untyped-def]
            if number == 1:
                raise KeyboardInterrupt
            return losses(number, rng)

        fit(module, until, folder, **{**settings, "every": 1})

    with monkeypatch.context() as patch:
        patch.setattr(vae, "fit", killed_after_a_step)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, weights, ["people", "autoencoder"])
    assert not (tmp_path / "autoencoder" / "figures.json").exists()
    assert [path.name for path in (tmp_path / "autoencoder" / "leg0" / "state").iterdir()] == ["step-00000001"]
    done = train(tmp_path, weights, ["people", "autoencoder"])
    assert done.manifest is None
    assert "unet" in done.missing
    name = "sd/vae/diffusion_pytorch_model.safetensors"
    assert (weights / name).read_bytes() == (trained[1] / name).read_bytes()


@pytest.mark.nightly
def test_one_part_retrained_in_another_place_agrees(
    trained: tuple[Path, Path, TrainingResult], crowd: Path, tmp_path: Path
) -> None:
    shutil.copytree(crowd / "people", tmp_path / "people")
    shutil.copytree(trained[1], tmp_path / "weights")
    (tmp_path / "weights" / "landmarks68.onnx").unlink()
    done = train(tmp_path, tmp_path / "weights", ["people", "landmarks"])
    assert done.missing == ()
    assert manifest.check(tmp_path / "weights") == []
    assert manifest.read(tmp_path / "weights") == manifest.read(trained[1])


def test_another_recipe_is_refused(trained: tuple[Path, Path, TrainingResult], tmp_path: Path) -> None:
    work, weights, _ = trained
    differing = r"autoencoder: begun with another recipe \(decoder_steps 2 there, 40 now; steps 2 there, 32 now\)"
    with pytest.raises(ValueError, match=differing):
        train(work, weights, ["autoencoder"], scale=0.01)
    other = tmp_path / "weights"
    shutil.copytree(weights, other)
    encoder = other / "clip" / "model.safetensors"
    encoder.write_bytes(encoder.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"clip/model\.safetensors"):
        train(work, other, ["unet"])


def test_unknown_parts_and_missing_inputs_are_refused(crowd: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vea: no part of the foundation; expected some of people, landmarks"):
        train(tmp_path, tmp_path / "weights", ["vea"])
    with pytest.raises(ValueError, match="train part people first"):
        train(tmp_path, tmp_path / "weights", ["clip"])
    with pytest.raises(ValueError, match="unet is trained on it; train autoencoder first"):
        train(crowd, tmp_path / "weights", ["unet"])

"""The second edition is trained part by part: each is shipped when finished, and others go on from it elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.face.face_prompts import EXPRESSIONS, POSES
from model.face.people_prompts import describe_people, with_face_prompts
from model.foundation import manifest, parts, vae
from model.foundation.edition import EDITIONS, Edition, GroupShape, edition_of
from model.foundation.measure import Sample, sample_of
from model.foundation.people import open_people
from model.foundation.person_losses import clause_ends, patch_shares
from model.foundation.render import render_people
from model.foundation.text_to_image import Sampling, draw_pictures
from model.foundation.tokenizer import learn_tokenizer
from model.foundation.train import TrainingResult, train_foundation
from model.foundation.unet import build as build_unet
from model.foundation.unet import text_of
from pipelines.data.synthetic.foundation_people import draw
from pipelines.data.synthetic.scene import Scene

SHAPES = (GroupShape(64, 64, 12, (1, 2, 3)), GroupShape(96, 48, 12, (2, 3, 4)))
DRAWN = {"people": 8, "photos": 3, "size": 64}


def small() -> Edition:
    """Return the second edition with small pictures, networks and batches."""
    second = EDITIONS[2]
    return replace(
        second,
        size=64,
        people=replace(second.people, **DRAWN, shapes=SHAPES),
        autoencoder=replace(second.autoencoder, widths=(8, 8, 16, 16), batch=4, steps=(1, 1)),
        clip=replace(second.clip, batch=4, groups=3, steps=(1,)),
        unet=replace(second.unet, widths=(32, 64), batch=4, steps=(1, 1), rates=(1e-3, 1e-3)),
    )


def train(work: Path, weights: Path, *names: str) -> TrainingResult:
    few = (GroupShape(64, 64, 4, (1, 2)), GroupShape(96, 48, 4, (3, 4)))
    sample = Sample(**DRAWN, shapes=few, drawn=Sampling(pictures=4, steps=1, guidance=1.0))
    return train_foundation(work, weights, draw, parts=names or None, workers=1, sample=sample, edition=small())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a training with finished people."""
    work = tmp_path_factory.mktemp("drawn")
    render_people(work / "people", draw, **DRAWN, workers=1, shapes=SHAPES)
    return work


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, TrainingResult]:
    """(work, weights, result) of a whole training."""
    root = tmp_path_factory.mktemp("second")
    shutil.copytree(drawn, root / "work")
    # People alone are no network to ship.
    assert train(root / "work", root / "weights", "people").manifest is None
    shutil.rmtree(root / "weights")
    assert train(root / "work", root / "weights", "people").missing == ("autoencoder", "clip", "unet")
    first = train(root / "work", root / "weights", "people", "autoencoder")
    # One part alone is listed, and a folder of weights with it is whole.
    assert first.missing == ("clip", "unet")
    assert manifest.check(root / "weights") == []
    assert set(manifest.read(root / "weights")["recipe"]) == {"people", "autoencoder"}
    return root / "work", root / "weights", train(root / "work", root / "weights")


def test_finished_parts_are_shipped_one_by_one(trained: tuple[Path, Path, TrainingResult]) -> None:
    _, weights, done = trained
    assert done.missing == ()
    known = manifest.read(weights)
    # The face networks are those of the first edition.
    assert tuple(known["recipe"]) == ("people", "autoencoder", "clip", "unet")
    assert not (weights / "judges").exists()
    assert manifest.check(weights) == []
    assert known["recipe"]["unet"]["widths"] == [32, 64]
    assert "begun" not in known
    several = known["figures"]["several_people"]
    assert {name for name in several if not name.endswith("_photos")} == {
        f"{what}_{count}" for what in ("count", "expression", "pose") for count in (1, 2, 3, 4)
    }
    assert all(0 <= value <= 1 for value in several.values())
    assert "small_heads" in known["figures"]["autoencoder"]


def test_the_pipeline_draws_every_shape(trained: tuple[Path, Path, TrainingResult]) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(trained[1] / "sd", local_files_only=True, dtype=torch.float32)
    for height, width in ((64, 64), (48, 96)):
        drawn_ = draw_pictures(pipe, ["a photo of a woman"], Sampling(steps=1, guidance=1.0), size=(height, width))
        assert drawn_.shape == (1, height, width, 3)


def test_another_machine_goes_on_after_the_last_shipped_leg(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit, names = vae.fit, []

    def fit_until(last: str):  # type: ignore[no-untyped-def]
        def counted(*args, name: str, **settings):  # type: ignore[no-untyped-def]
            names.append(name)
            if name == last:
                raise KeyboardInterrupt
            fit(*args, name=name, **settings)

        return counted

    monkeypatch.setattr(vae, "fit", fit_until("decoder"))
    shutil.copytree(drawn, tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "first", tmp_path / "weights", "people", "autoencoder")
    assert manifest.read(tmp_path / "weights")["begun"]["autoencoder"]["legs"] == 1
    # Only the weights get to the other machine, which draws the same people.
    shutil.copytree(drawn, tmp_path / "second")
    warning = "optimiser's state is not there, so that the learning rate warms up again"
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "second", tmp_path / "weights", "people", "autoencoder")
    assert warning in capsys.readouterr().err
    # It is stopped in its first leg, and goes on with this one.
    monkeypatch.setattr(vae, "fit", fit_until("nothing"))
    done = train(tmp_path / "second", tmp_path / "weights", "people", "autoencoder")
    assert names == ["autoencoder", "decoder", "decoder", "decoder"]
    assert warning not in capsys.readouterr().err
    assert done.missing == ("clip", "unet")
    known = manifest.read(tmp_path / "weights")
    assert "autoencoder" in known["recipe"]
    assert "begun" not in known
    # A third one trains nothing again.
    shutil.copytree(drawn, tmp_path / "third")
    names.clear()
    train(tmp_path / "third", tmp_path / "weights", "people", "autoencoder")
    assert names == []


def test_the_spec_keeps_its_bounds() -> None:
    second = EDITIONS[2]
    assert second.size == 128
    unet = build_unet(second, 192)
    assert sum(value.numel() for value in unet.parameters()) <= 10_000_000
    shapes = {(shape.width, shape.height) for shape in second.people.shapes}
    assert (128, 128) in shapes
    for width, height in shapes:
        # Latents have even sides, as the UNet's two levels need.
        assert width % (2 * second.autoencoder.factor) == height % (2 * second.autoencoder.factor) == 0
        assert abs(width * height / 128**2 - 1) <= 0.125
    assert {max(width / height, height / width) for width, height in shapes} == {1.0, 160 / 112, 2.0}
    assert {count for shape in second.people.shapes for count in shape.people} == {1, 2, 3, 4}
    assert [shape.pictures for shape in sample_of(second).shapes] == [160] * 4
    assert manifest.folder_of(1) == manifest.WEIGHTS
    assert manifest.folder_of(2) not in manifest.WEIGHTS.parents
    with pytest.raises(ValueError, match="edition 3: expected one of 1, 2"):
        edition_of(3)


def test_the_first_edition_has_the_recipe_that_its_manifest_lists() -> None:
    known = manifest.read()["recipe"]
    for part in parts.RECIPE:
        # The log names the parts that were trained with other steps; optional ones do not ship.
        if part.name != "landmarks" and not part.optional:
            assert part.settings(EDITIONS[1]) == known[part.name], part.name


def test_prompts_of_four_fit_into_the_tokens() -> None:
    rng = np.random.default_rng(0)
    scenes = [Scene.sample(rng, EXPRESSIONS[i % 7], POSES[i % 5], "woman") for i in range(1200)]
    clothes = [f"a {scene.noun} wearing {scene.clothes}" for scene in scenes]
    named = [describe_people(clothes[i : i + 4], scenes[i].setting) for i in range(0, 1200, 4)]
    spec = EDITIONS[2].clip
    texts = [*(scene.prompt for scene in scenes), *(scene.face_prompt for scene in scenes), *named]
    tokenizer = learn_tokenizer(texts, spec.merges, spec.tokens)
    person = "a person wearing an orange striped shirt"
    prompt = with_face_prompts(
        describe_people([person] * 4, "at night under the stars"), ["disgusted, slightly turned to the right"] * 4
    )
    tokens = tokenizer([prompt], padding=True, return_tensors="np")
    assert tokens.input_ids.shape[1] <= spec.tokens
    (ends,) = clause_ends(tokens.input_ids, tokenizer)
    assert len(ends) == 4
    # Each person's words end with its pose.
    last = tokenizer.convert_ids_to_tokens(tokens.input_ids[0, ends])
    assert last == ["right</w>"] * 4


def test_the_patches_of_a_face_are_where_it_is_in_the_squared_picture(drawn: Path) -> None:
    wide = open_people(drawn / "people").groups[1]
    shares = patch_shares(wide, np.arange(len(wide.photos)), 8).reshape(len(wide.photos), -1, 8, 8)
    here = np.asarray(wide.identity) >= 0
    assert torch.allclose(shares.sum((2, 3))[here], torch.ones(int(here.sum())))
    assert not shares[~here].any()
    # The picture is twice as wide as high: bars fill the two rows of patches at the top and at the bottom.
    assert not shares[:, :, [0, 1, 6, 7]].any()
    across = (shares.sum(2) * torch.arange(8)).sum(-1).numpy()
    middles = np.asarray(wide.boxes)[..., [0, 2]].mean(-1) / 96 * 8 - 0.5
    assert np.abs(across - middles)[here].max() < 0.3


def test_training_texts_name_each_persons_expression_or_less() -> None:
    prompt = describe_people(["a man", "a woman"], "blue background")
    texts = {text_of(prompt, ("sad", "happy"), np.random.default_rng(seed)) for seed in range(300)}
    assert {"", prompt, with_face_prompts(prompt, ["sad", "happy"]), with_face_prompts(prompt, ["", "happy"])} <= texts
    # Pairs of the first edition are not named by place.
    assert {text_of("two people", ("sad", "happy"), np.random.default_rng(seed)) for seed in range(50)} == {
        "",
        "two people",
    }

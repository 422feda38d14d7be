"""A base of photographs: resumed exactly, loaded like any other, trained on what is permitted and known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.face.face_geometry import CROP_TEMPLATE
from model.foundation import manifest, photograph_unet
from model.foundation.edition import PHOTOGRAPHS
from model.foundation.photographs import SUBJECT, PhotographContext, train_photographs
from model.network.base import load_base
from model.training.cache import text_keys
from model.training.photos import PhotoContent, Photos

EDITION = replace(
    PHOTOGRAPHS,
    size=64,
    clip=replace(PHOTOGRAPHS.clip, size=24, merges=20, steps=(2,), batch=2),
    unet=replace(PHOTOGRAPHS.unet, widths=(32, 64), heads=(2, 2), steps=(4, 2), batch=2),
)


def photos(*numbers: int, expression: int = 1, pose: int = 0) -> Photos:
    """Return photographs of 64 px by number, with one expression (-1: open) and pose."""

    def read(positions: np.ndarray) -> Iterator[PhotoContent]:
        for position in positions:
            rng = np.random.default_rng(numbers[position])
            yield PhotoContent(
                image=np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8),
                bbox=np.array([16, 8, 40, 64], np.float32),
                keypoints=CROP_TEMPLATE * 64,
                landmarks=rng.uniform(16, 48, (68, 2)).astype(np.float32),
                embedding=np.eye(512, dtype=np.float32)[numbers[position]],
            )

    zeros, labels = np.zeros(len(numbers), np.int32), np.ones(len(numbers), np.int8)
    keys = text_keys([str(number) for number in numbers])
    return Photos(keys, zeros, ["p"], zeros, [""], expression * labels, pose * labels, read)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small random AutoencoderTiny."""
    from diffusers import AutoencoderTiny

    folder = tmp_path_factory.mktemp("autoencoder")
    widths = {f"{part}_block_out_channels": (8, 8, 8, 8) for part in ("encoder", "decoder")}
    blocks = {"num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1)}
    torch.manual_seed(0)
    AutoencoderTiny(**widths, **blocks).save_pretrained(folder)
    return folder


@pytest.fixture
def context(autoencoder: Path, tmp_path: Path) -> Callable[..., PhotographContext]:
    """Return a maker of trainings by name; one of a name is continued."""

    def make(name: str, training: Photos | None = None) -> PhotographContext:
        shown = photos(1, 2, 3, 4) if training is None else training
        folder = tmp_path / name
        return PhotographContext(folder / "work", folder / "weights", EDITION, autoencoder, shown, photos(5, 6))

    return make


def test_a_killed_training_ends_with_the_same_bytes(
    context: Callable[..., PhotographContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photograph_unet, "CHECKPOINT_EVERY", 2)
    whole = train_photographs(context("whole"), {"licences": {"CC0": 4}})
    losses, calls = photograph_unet.denoising_losses, iter(range(100))

    def killed(*arguments: object) -> dict[str, torch.Tensor]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return losses(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(photograph_unet, "denoising_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        train_photographs(context("cut"), {"licences": {"CC0": 4}})
    monkeypatch.setattr(photograph_unet, "denoising_losses", losses)
    assert train_photographs(context("cut"), {"licences": {"CC0": 4}}) == whole
    known = manifest.read(context("whole").weights)
    assert manifest.read(context("cut").weights) == known
    assert not manifest.check(context("whole").weights)
    assert known["origin"]["photos"]["train"] == photos(1, 2, 3, 4).digest()
    assert known["origin"]["licences"] == {"CC0": 4}


def test_the_base_is_one_like_any_other(context: Callable[..., PhotographContext]) -> None:
    made = context("base")
    figures = train_photographs(made, {})
    assert figures["unet"]["parameters"] < 15_000_000
    assert set(figures["unet"]) == {"parameters", "error", "held_out_error"}
    base = load_base(made.weights / "sd", made.weights / "image_encoder")
    assert (base.resolution, base.crop_size) == (64, 24)
    pictures = np.stack([item.image for item in made.training.content(np.arange(2))])
    latents = base.encode_images(pictures)
    assert latents.shape == (2, 4, 8, 8)
    kept = made.data(made.training).latents.tensor(np.arange(2))
    # The pipeline is stored in half precision.
    assert torch.allclose(kept[:, 0], latents, atol=0.02)
    assert base.decode_latents(latents).shape == pictures.shape


def test_only_what_is_known_of_a_face_is_a_part_of_its_text(context: Callable[..., PhotographContext]) -> None:
    known = context("texts").data(photos(1))
    assert known.prompt(0) == SUBJECT
    assert known.face_prompt(0, mirrored=False) == "happy, turned to the left"
    assert known.face_prompt(0, mirrored=True) == "happy, turned to the right"
    assert context("texts").data(photos(1, expression=-1)).face_prompt(0, mirrored=False) == "turned to the left"


def test_labels_may_be_open_in_all_photographs(context: Callable[..., PhotographContext]) -> None:
    figures = train_photographs(context("open", photos(1, 2, expression=-1)), {})
    assert np.isfinite(figures["unet"]["error"])


def test_other_photographs_need_a_training_of_their_own(context: Callable[..., PhotographContext]) -> None:
    train_photographs(context("first"), {}, parts=("clip",))
    with pytest.raises(ValueError, match="begun with another recipe"):
        train_photographs(context("first", photos(1, 2, 3)), {}, parts=("clip",))


@pytest.mark.parametrize(
    ("made", "message"),
    [((), "no usable photo in split train"), ((1, 2), "a photo of 64x64 pixels, base.resolution is 128")],
)
def test_photographs_that_cannot_be_trained_on_are_refused(
    context: Callable[..., PhotographContext], made: tuple[int, ...], message: str
) -> None:
    wanted = context("refused", photos(*made))
    if made:
        wanted = replace(wanted, edition=replace(EDITION, size=128))
    with pytest.raises(ValueError, match=message):
        train_photographs(wanted, {})
    assert not (wanted.weights / manifest.FILE).exists()

"""Anchoring of a method with facial parts: their pictures, words and regions, and the localisation loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.face.face_geometry import crop_landmarks, face_crop
from model.face.face_parts import MASK_SIDE, NOT_NAMED, described, part_masks, part_pictures, part_places
from model.network.adapter import Adapter
from model.network.base import Base, empty_states
from model.network.methods import CONSISTENTID
from model.training.anchoring import AnchoringData, AnchoringModel, anchoring_data, make_batch, train_anchoring
from model.training.encode import RecordEncoder
from model.training.loop import Run
from model.training.photos import Photos
from model.training.seeded_draws import generator
from pipelines.core.sections.training import FaceEncoderSize, FacialParts, TrainAnchoring

PART_SETTINGS = FacialParts(width=64, depth=1, localisation_weight=0.5)
SETTINGS = TrainAnchoring(
    method="consistentid",
    steps=2,
    batch_size=2,
    learning_rate=1e-2,
    ema_decay=0.0,
    checkpoint_every=10,
    log_every=1,
    probe_photos=2,
    sizes=FaceEncoderSize(lora_rank=2),
    facial_parts=PART_SETTINGS,
)
STEPS = np.array([50, 300, 600, 900])
NO_DROPS = (0.0, 0.0, 0.0)


@pytest.fixture
def photos(make_photos: Callable[..., Photos]) -> Photos:
    return replace(make_photos(1, 2, 3, 4), prompts=["a photo", "her mouth"], prompt=np.array([0, 1, 0, 1], np.int32))


@pytest.fixture
def data(base: Base, tmp_path: Path, photos: Photos) -> AnchoringData:
    return anchoring_data(base, photos, RecordEncoder(tmp_path / "cache", 4, None), 64, CONSISTENTID)


def batch(data: AnchoringData, drops: tuple[float, ...] = NO_DROPS) -> Any:
    return make_batch(data, np.arange(4), generator(0, "test", 1), STEPS, drops)


def model_on(base: Base, **changes: Any) -> AnchoringModel:
    torch.manual_seed(1)
    settings = SETTINGS.model_copy(update={"facial_parts": PART_SETTINGS.model_copy(update=changes)})
    sizes = {"lora_rank": 2, **settings.facial_parts.sizes()}
    adapter = Adapter.create(base.unet, base.image_encoder, sizes, method=CONSISTENTID)
    adapter.attach(base.unet)
    return AnchoringModel(adapter.train(), base, settings, empty=empty_states(base.image_encoder))


def test_a_batch_has_pictures_regions_and_words_of_every_part(base: Base, data: AnchoringData, photos: Photos) -> None:
    found = batch(data)
    texts = [described(base.tokenizer, photos.prompts[number]) for number in photos.prompt]
    assert found.places.tolist() == [part_places(base.tokenizer, text) for text in texts]
    assert NOT_NAMED not in found.places
    torch.testing.assert_close(found.text.states, base.encode_text(texts)[0], atol=2e-3, rtol=2e-3)
    first = next(photos.content(np.array([0])))
    crop = face_crop(first.image, first.keypoints, first.landmarks, base.crop_size)
    pictures = part_pictures(crop, crop_landmarks(first.landmarks, first.keypoints))
    torch.testing.assert_close(found.part_states[0], base.encode_crops(pictures), atol=2e-3, rtol=2e-3)
    assert np.array_equal(found.part_masks[0], part_masks(first.landmarks / 64, MASK_SIDE))


def test_without_text_or_identity_no_word_names_a_part(data: AnchoringData) -> None:
    for drops in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        assert (batch(data, drops).places == NOT_NAMED).all()


def test_the_parts_change_the_prediction_where_words_name_them(base: Base, data: AnchoringData) -> None:
    model, given = model_on(base), batch(data)
    other = replace(given, part_states=given.part_states + 1)
    unnamed = given.places.clone()
    unnamed[1:] = NOT_NAMED
    with torch.no_grad():
        predicted, changed = (model._predict(replace(one, places=unnamed))[1] for one in (given, other))
    assert not torch.allclose(predicted[0], changed[0])
    assert torch.equal(predicted[1:], changed[1:])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_localisation_reaches_every_part_of_the_adapter(base: Base, data: AnchoringData, checkpointing: bool) -> None:
    """By its own gradient, also where activations are computed again."""
    model, given = model_on(base), batch(data)
    base.unet.train()
    (base.unet.enable_gradient_checkpointing if checkpointing else base.unet.disable_gradient_checkpointing)()
    try:
        losses = model(given)
        losses["localisation"].backward()
    finally:
        base.unet.disable_gradient_checkpointing()
        base.unet.eval()
    assert set(losses) == {"loss", "noise", "localisation"} == {"loss", *model.columns}
    torch.testing.assert_close(losses["loss"], losses["noise"] + 0.5 * losses["localisation"])
    assert -1 <= losses["localisation"] <= 1
    for part in (model.facial_encoder, model.face_encoder, model.processors):
        assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in part.parameters())


def test_activations_computed_again_give_the_same_gradient(base: Base, data: AnchoringData) -> None:
    gradients = []
    base.unet.train()
    try:
        for switch in (base.unet.disable_gradient_checkpointing, base.unet.enable_gradient_checkpointing):
            switch()
            model = model_on(base)
            model(batch(data))["loss"].backward()
            gradients.append([value.grad for value in model.parameters() if value.grad is not None])
    finally:
        base.unet.disable_gradient_checkpointing()
        base.unet.eval()
    for one, again in zip(*gradients, strict=True):
        torch.testing.assert_close(one, again, atol=1e-7, rtol=1e-5)


def test_without_a_weight_there_is_no_localisation(base: Base, data: AnchoringData) -> None:
    model = model_on(base, localisation_weight=0.0)
    assert set(model(batch(data))) == {"loss"}
    assert model.columns == ()


def test_the_published_form_needs_as_many_positions_as_tokens(base: Base, data: AnchoringData) -> None:
    model = model_on(base, localisation_form="published")
    given = batch(data)
    few = replace(given, places=given.places.clamp(max=15))
    assert torch.isfinite(published := model(few)["localisation"])
    with pytest.raises(
        ValueError, match=r"a word at token 7\d and a self-attention of 64 positions.*use the form `ours`"
    ):
        model(replace(given, places=given.places + 70 - given.places.max()))
    assert not torch.equal(model_on(base)(few)["localisation"], published)


def test_it_trains_and_localises(base: Base, data: AnchoringData, start: Callable[..., Run], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 8, "log_every": 4, "batch_size": 4, "drop_text": 0.2})
    adapter, curve = train_anchoring(base, data, data, settings, start())
    assert curve.start is not None
    assert curve.rows[-1]["probe"] < curve.start
    assert curve.rows[-1]["localisation"] < curve.rows[0]["localisation"]
    adapter.save(tmp_path / "adapter", base.reference("sd", "clip"))
    again = Adapter.load(tmp_path / "adapter", base.unet)
    assert again.sizes["parts_width"] == 64
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    states, embeddings = data.parts.states.tensor(np.arange(4)), data.faces.embeddings(np.arange(4))
    assert torch.equal(again.part_vectors(states), adapter.part_vectors(states))
    tokens = [one.identity_tokens(embeddings, data.states.tensor(np.arange(4))) for one in (adapter, again)]
    assert torch.equal(*tokens)


def test_another_training_starts_with_its_facial_encoder(
    base: Base, data: AnchoringData, start: Callable[..., Run], tmp_path: Path
) -> None:
    torch.manual_seed(7)
    sizes = {"lora_rank": 2, **PART_SETTINGS.sizes()}
    first = Adapter.create(base.unet, base.image_encoder, sizes, method=CONSISTENTID)
    first.save(tmp_path / "first", base.reference("sd", "clip"))
    still = SETTINGS.model_copy(update={"learning_rate": 1e-9, "weight_decay": 0.0, "steps": 1})
    adapter, _ = train_anchoring(base, data, data, still, start(), start=tmp_path / "first")
    for one, other in zip(adapter.facial_encoder.parameters(), first.facial_encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    wider = still.model_copy(update={"facial_parts": FacialParts(width=128, depth=1)})
    with pytest.raises(ValueError, match=r"first: .*parts_width 64, here 128"):
        train_anchoring(base, data, data, wider, start(), start=tmp_path / "first")

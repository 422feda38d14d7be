"""The identity term aligns faces as insightface does and measures the cosine to the photo's embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from insightface.utils.face_align import norm_crop

from model.foundation.manifest import WEIGHTS
from model.network.adapter import Adapter
from model.network.base import Base
from model.training.alignment import aligned_faces, alignment, normalised_keypoints
from model.training.anchoring import AnchoringData, AnchoringModel, anchoring_data, make_batch
from model.training.encode import RecordEncoder
from model.training.identity_loss import IdentityLoss, conditioning_recogniser
from model.training.photos import PhotoContent, Photos
from model.training.recognition_network import RecognitionNetwork
from model.training.seeded_draws import generator
from pipelines.core.sections.training import IdentityTerm
from tests.model.training.test_anchoring import SETTINGS

STEPS = np.array([50, 300, 600, 900])


PACK = WEIGHTS / "insightface/models/tiny_faces"


@pytest.fixture(scope="module")
def network() -> RecognitionNetwork:
    return RecognitionNetwork(PACK / "rec.onnx")


@pytest.fixture
def data(base: Base, photos: Photos, tmp_path: Path) -> AnchoringData:
    return anchoring_data(base, photos, RecordEncoder(tmp_path, 4, None), 64)


@pytest.fixture
def photos(make_photos: Callable[..., Photos], network: RecognitionNetwork) -> Photos:
    """Four photos with the embeddings that the network gives them."""
    plain = make_photos(1, 2, 3, 4)

    def read(positions: np.ndarray) -> Iterator[PhotoContent]:
        for item in plain.content(positions):
            crop = norm_crop(item.image, item.keypoints, network.side)
            with torch.no_grad():
                found = network(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1)
            yield replace(item, embedding=found[0].numpy())

    return replace(plain, content=read)


def test_the_aligned_face_is_insightfaces(photo_content: Callable[[int], PhotoContent]) -> None:
    item = photo_content(3)
    turned = item.keypoints + np.float32([[2, 3], [-1, 5], [0, 1], [3, 0], [-2, 2]])
    picture = torch.from_numpy(item.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    place = torch.from_numpy(alignment(normalised_keypoints(turned, 64, 64)))[None]
    found = ((aligned_faces(picture, place, 112)[0] + 1) * 127.5).permute(1, 2, 0).numpy()
    wanted = norm_crop(item.image, turned, 112).astype(np.float32)
    assert np.abs(found - wanted).mean() < 2  # of 255 grey levels
    assert np.abs(found[:, 4:] - wanted[:, :-4]).mean() > 10


def test_the_loss_is_zero_for_the_photo_itself_and_one_for_an_orthogonal_embedding(
    base: Base, network: RecognitionNetwork, data: AnchoringData
) -> None:
    rows = np.arange(4)
    latents, places = data.latents.tensor(rows), data.faces.alignments(rows)
    loss = IdentityLoss(network, base.vae)
    # The autoencoder's weights are random, so its own reconstructions are the reference.
    with torch.no_grad():
        pictures = torch.from_numpy(base.decode_latents(latents)).permute(0, 3, 1, 2).float() / 127.5 - 1
        own = network(aligned_faces(pictures, places, network.side))
        assert float(loss(latents, own, places)) == pytest.approx(0, abs=0.01)
        other = torch.linalg.qr(torch.cat([own.T, torch.ones(len(own.T), 1)], 1)).Q[:, -1]
        assert float(loss(latents, other.expand(4, -1), places)) == pytest.approx(1, abs=0.01)
        assert float(loss(latents[:0], own[:0], places[:0])) == 0


def test_dropped_rows_do_not_count_and_gradients_reach_the_adapter(
    base: Base, network: RecognitionNetwork, data: AnchoringData, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(base, imr=False).train()
    adapter.attach(base.unet)
    settings = SETTINGS.model_copy(update={"identity": IdentityTerm(weight=0.5, faces=2)})
    model = AnchoringModel(adapter, base, settings, network)
    batch = make_batch(data, np.arange(4), generator(0, "test", 1), STEPS, (0.0, 0.0, 0.0))
    batch = replace(batch, dropped=torch.tensor([True, False, False, False]))
    losses = model(batch)
    assert float(losses["loss"]) == pytest.approx(float(losses["noise"] + 0.5 * losses["identity"]))
    assert float(losses["noise"]) == pytest.approx(float(model.noise_loss(batch)))
    losses["identity"].backward()
    assert all(bool(value.grad.abs().max() > 0) for name, value in model.named_parameters() if name != "null_tokens")
    assert all(value.grad is None for value in base.vae.parameters())
    # Row 0 is dropped and row 3 is beyond the number of faces.
    for row, counts in ((0, False), (1, True), (2, True), (3, False)):
        places = batch.alignments.clone()
        places[row, :, 2] += 0.5
        moved = float(model(replace(batch, alignments=places))["identity"])
        assert (abs(moved - float(losses["identity"])) > 1e-4) is counts, row
    dropped = model(replace(batch, dropped=torch.ones(4, dtype=torch.bool)))
    assert float(dropped["loss"]) == float(dropped["noise"])


def test_only_the_recogniser_that_embedded_the_photos_is_accepted(
    photos: Photos, make_photos: Callable[..., Photos], tmp_path: Path
) -> None:
    assert conditioning_recogniser(PACK, photos).side == 112
    with pytest.raises(
        ValueError, match=r"differ from those of preprocessing \(median cosine .*: they were preprocessed with ano"
    ):
        conditioning_recogniser(PACK, make_photos(1, 2, 3, 4))
    with pytest.raises(ValueError, match="no recognition network there; expected a face pack"):
        conditioning_recogniser(tmp_path, photos)


def test_half_precision_moves_no_face(base: Base, network: RecognitionNetwork, data: AnchoringData) -> None:
    rows = np.arange(4)
    latents, places = data.latents.tensor(rows), data.faces.alignments(rows)
    embeddings = data.faces.embeddings(rows)
    loss = IdentityLoss(network, base.vae)
    with torch.no_grad():
        whole = loss(latents, embeddings, places)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert float(loss(latents, embeddings, places)) == float(whole)

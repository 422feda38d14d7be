"""A step of the anchoring stage at full size, with or without caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_networks import PROJECT
from model.face.face_geometry import CROP_TEMPLATE, face_crop
from model.network.adapter import Adapter
from model.network.base import Base
from model.training.anchoring import (
    AnchoringBatch,
    AnchoringData,
    AnchoringModel,
    anchoring_data,
    make_batch,
)
from model.training.cache import text_keys
from model.training.encode import RecordEncoder
from model.training.optimisation import adamw
from model.training.photos import PhotoContent, Photos
from model.training.runtime import offload_all_but_denoiser
from model.training.seeded_draws import generator, positions, stratified_steps
from pipelines.core.params import load_params
from pipelines.core.sections.training import TrainAnchoring


@dataclass(frozen=True)
class Mode:
    """Whether latents, CLIP states and text states come from caches, and whether activations are recomputed."""

    name: str
    cached: bool
    checkpointing: bool


MODES = (
    Mode("cached", cached=True, checkpointing=False),
    Mode("cached, checkpointing", cached=True, checkpointing=True),
    Mode("no caches", cached=False, checkpointing=False),
    Mode("no caches, checkpointing", cached=False, checkpointing=True),
)


def settings(batch: int, rank: int) -> TrainAnchoring:
    """Return the parameters of the profile `sd15` with this batch size and LoRA rank."""
    profile = load_params(PROJECT / "profiles" / "sd15.yaml").train_anchoring
    sizes = profile.sizes.model_copy(update={"lora_rank": rank})
    return profile.model_copy(update={"batch_size": batch, "sizes": sizes})


def random_photos(count: int, side: int) -> Photos:
    """Return random photos of `side` px, each with its own prompt and a face box in the middle."""

    def content(number: int) -> PhotoContent:
        rng = np.random.default_rng(number)
        embedding = rng.normal(size=512).astype(np.float32)
        return PhotoContent(
            image=rng.integers(0, 255, (side, side, 3), dtype=np.uint8),
            bbox=np.array([0.25, 0.125, 0.75, 1.0], np.float32) * side,
            keypoints=CROP_TEMPLATE * side,
            landmarks=rng.uniform(0.3 * side, 0.7 * side, (68, 2)).astype(np.float32),
            embedding=embedding / np.linalg.norm(embedding),
        )

    def read(rows: np.ndarray) -> Iterator[PhotoContent]:
        return (content(int(row)) for row in rows)

    zeros = np.zeros(count, np.int8)
    keys = text_keys([f"{side} px, {number}" for number in range(count)])
    prompts = [f"a photo of person number {number}" for number in range(count)]
    order = np.arange(count, dtype=np.int32)
    return Photos(keys, np.zeros(count, np.int32), ["person"], order, prompts, zeros, zeros, read)


class Trainer:
    """Train the anchoring stage; every step may use another mode, and all modes share the weights."""

    def __init__(self, base: Base, photos: Photos, state: Path, accelerator: Any, *, batch: int, rank: int) -> None:
        self.base, self.photos, self.accelerator = base, photos, accelerator
        self.settings = settings(batch, rank)
        # All modes use it; those without caches take only geometry and embeddings from it, which need no network.
        self.data: AnchoringData = anchoring_data(base, photos, RecordEncoder(state, batch, None), base.resolution)
        torch.manual_seed(0)
        adapter = Adapter.create(base.unet, base.image_encoder, self.settings.sizes, self.settings.gate_threshold)
        adapter.to(accelerator.device).train()
        adapter.attach(base.unet)
        self.optimisation = adamw(AnchoringModel(adapter, base, self.settings), self.settings, accelerator)
        self.taken = 0

    @property
    def trained(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.optimisation.parameters)

    def release_unused(self, mode: Mode) -> None:
        """Remove from memory what a training in `mode` does not need."""
        if mode.cached:
            offload_all_but_denoiser(self.base, gradient_checkpointing=mode.checkpointing)

    def step(self, mode: Mode) -> Tensor:
        """Make a batch, as the stage does, take one optimiser step, and return the loss."""
        unet = self.base.unet
        (unet.enable_gradient_checkpointing if mode.checkpointing else unet.disable_gradient_checkpointing)()
        size = self.settings.batch_size
        rows = positions(0, self.taken, size, len(self.photos))
        rng = generator(0, "anchoring", self.taken)
        drops = (self.settings.drop_text, self.settings.drop_identity, self.settings.drop_both)
        batch = make_batch(self.data, rows, rng, stratified_steps(rng, size, 1000), drops)
        if not mode.cached:
            batch = self._encoded(batch, rows)
        self.taken += 1
        loss = self.optimisation.ready(batch.to(self.accelerator.device))["loss"]
        self.optimisation.step(loss)
        return loss.detach()

    def _encoded(self, batch: AnchoringBatch, rows: np.ndarray) -> AnchoringBatch:
        """Return `batch` with latents and states computed from photos and prompts instead of read from caches."""
        base = self.base
        items = list(self.photos.content(rows))
        crops = np.stack([face_crop(x.image, x.keypoints, x.landmarks, base.crop_size) for x in items])
        return replace(
            batch,
            latents=base.encode_images(np.stack([item.image for item in items])).float(),
            states=base.encode_crops(crops).float(),
            text=base.text_states([self.photos.prompts[self.photos.prompt[row]] for row in rows]).to(torch.float32),
        )


def counted_flops(step: Callable[[], Any]) -> int:
    """Return the number of floating-point operations of matrix products, convolutions and attention in one call."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    ops = torch.ops.aten
    # torch's table has no entry for the fused attention of CPUs.
    cpu = {
        ops._scaled_dot_product_flash_attention_for_cpu: forward,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=cpu) as counter:
        step()
    return int(counter.get_total_flops())

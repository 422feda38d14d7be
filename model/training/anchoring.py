"""Anchoring: face encoder, null tokens and SAA learn ordinary noise prediction (paper section 3.4).

The reference is the face crop of the target photo itself, and the text never names expression or pose, so the tokens
have to carry identity and motion. The next stage separates the two. The adapters of other methods are trained here,
too, by the same loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.face.conventions import OURS
from model.network.adapter import Adapter
from model.network.adapter_config import sizes_for
from model.network.base import Base, empty_states
from model.network.methods import DYNAMICID, Method, method_named
from model.network.text_encoding import TextStates
from model.network.text_maps import TextMaps, layers_of
from model.training.curve import LossCurve
from model.training.encode import RecordEncoder
from model.training.identity_loss import IdentityLoss
from model.training.initial_weights import initialise_from
from model.training.localisation import localisation_loss
from model.training.loop import Run, run_loop
from model.training.losses import (
    clean_latents,
    face_weights,
    latents_recoverable,
    noise_target,
    prediction,
    snr_weights,
    weighted_mse,
)
from model.training.noise_schedule import noise_schedule_of, timesteps_of
from model.training.optimisation import adamw
from model.training.parts import PartRecords, part_records
from model.training.photos import Photos
from model.training.projection import pretrain_projection
from model.training.recognition_network import RecognitionNetwork
from model.training.records import FaceRecords, Records, TextRecords
from model.training.runtime import Batch, offload_all_but_denoiser
from model.training.samples import SampleGrid, some_of
from model.training.seeded_draws import decayed_shift, generator, normal, positions, share_of, stratified_steps
from model.training.settings import AnchoringSettings

_PROBE_SEED = 20230


@dataclass(frozen=True)
class AnchoringData:
    """Outputs of the frozen models for the photos of one split, computed once or whenever they are drawn."""

    photos: Photos
    latents: Records
    states: Records | None
    faces: FaceRecords
    texts: TextRecords
    parts: PartRecords | None = None

    @property
    def networks(self) -> set[str]:
        """The base models that are needed to compute records."""
        return {name for records in self.encoded for name in records.networks}

    @property
    def encoded(self) -> list[Records]:
        """What the base models compute; no states and parts for a method that does not read them."""
        parts = None if self.parts is None else self.parts.states
        return [one for one in (self.states, parts, self.latents, self.texts.records) if one is not None]


def anchoring_data(
    base: Base, photos: Photos, encoder: RecordEncoder, resolution: int, method: Method = DYNAMICID
) -> AnchoringData:
    """Return the data of `photos` for a method; the last text is the empty prompt.

    Of a method with facial parts, the texts are prompts that name them. What is not in the cache is computed when it is
    drawn. Raise ValueError if the disk has no room for all of it.
    """
    prompts, parts = photos.prompts, None
    if method.facial_parts:
        prompts, parts = part_records(base, photos, encoder)
    data = AnchoringData(
        photos,
        encoder.latents(base, photos, resolution),
        encoder.clip_states(base, photos) if method.image_states else None,
        encoder.faces(photos),
        encoder.texts(base, [*prompts, ""]),
        parts,
    )
    encoder.require_space(*data.encoded, data.faces.records, *([] if parts is None else [parts.landmarks]))
    return data


@dataclass(frozen=True)
class AnchoringBatch(Batch):
    """One batch: latents and noise (B, C, h, w), steps (B,), conditions, and `dropped` (B,), true without identity.

    Of a method with facial parts: CLIP states of the parts (B, R, T, W), their regions (B, R, S, S), and the tokens
    (B, R) int64 that name them.
    """

    latents: Tensor
    noise: Tensor
    steps: Tensor
    text: TextStates
    states: Tensor
    embeddings: Tensor
    boxes: Tensor
    alignments: Tensor
    dropped: Tensor
    part_states: Tensor
    part_masks: Tensor
    places: Tensor


def make_batch(
    data: AnchoringData,
    rows: np.ndarray,
    rng: np.random.Generator,
    steps: np.ndarray,
    drops: tuple[float, ...],
    *,
    part: slice = slice(None),
) -> AnchoringBatch:
    """Return photos `rows` with noise for `steps`; `drops`: the shares without text, without identity, without both.

    `part` is what one of several processes takes of them: all draw the same numbers, and each reads its own photos.
    """
    latents = data.latents.tensor(rows[part])
    noise = torch.from_numpy(normal(rng, (len(rows), *latents.shape[1:]))[part])
    chance = rng.random(len(rows))[part]
    rows, steps = rows[part], steps[part]
    text, identity, both = np.cumsum(drops)
    without_text = (chance < text) | ((chance >= identity) & (chance < both))
    without_identity = (chance >= text) & (chance < both)
    texts = np.where(without_text, len(data.photos.prompts), data.photos.prompt[rows])
    none, parts = torch.zeros(len(rows), 0), data.parts
    return AnchoringBatch(
        latents,
        noise,
        torch.from_numpy(steps),
        data.texts(texts),
        none if data.states is None else data.states.tensor(rows),
        data.faces.embeddings(rows),
        data.faces.boxes(rows),
        data.faces.alignments(rows),
        torch.from_numpy(without_identity),
        none if parts is None else parts.states.tensor(rows),
        none if parts is None else parts.masks(rows),
        none if parts is None else parts.places_of(texts, without_identity),
    )


class AnchoringModel(nn.Module):
    """The trainable parts; the frozen base is not registered, so that no checkpoint contains it.

    `empty`: CLIP states of no picture, for a method whose null tokens are not learned (see base.empty_states).
    """

    def __init__(
        self,
        adapter: Adapter,
        base: Base,
        settings: AnchoringSettings,
        recogniser: RecognitionNetwork | None = None,
        empty: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.face_encoder = adapter.face_encoder
        if adapter.method.learned_null:
            self.null_tokens = adapter.null_tokens
        self.empty = empty
        self.processors = adapter.processors
        self.facial_encoder = adapter.facial_encoder
        self.located: frozenset[int] = frozenset()
        if adapter.method.facial_parts and settings.facial_parts.localisation_weight:
            names = dict(zip(base.denoiser.attn_processors, adapter.processors, strict=True))
            self.located = layers_of(names, settings.facial_parts.localisation_form)
        self.frozen = (adapter, base, noise_schedule_of(base))
        self.settings = settings
        self.identity_loss = None
        if recogniser is not None and settings.identity.weight:
            self.identity_loss = IdentityLoss(recogniser.to(base.device), base.vae.to(base.device))
            if settings.gradient_checkpointing:
                base.vae.enable_gradient_checkpointing()

    def forward(self, batch: AnchoringBatch) -> dict[str, Tensor]:
        """Return scalar losses by name: `loss` and, where it has several terms, `columns`."""
        maps = TextMaps(batch.places, self.located) if self.located else None
        noised, predicted = self._predict(batch, maps)
        terms = {"noise": self._noise_loss(batch, predicted)}
        total = terms["noise"]
        if self.identity_loss is not None:
            terms["identity"] = self._identity(batch, noised, predicted)
            total = total + self.settings.identity.weight * terms["identity"]
        if maps is not None:
            terms["localisation"] = localisation_loss(maps.found, batch.part_masks, batch.places >= 0)
            total = total + self.settings.facial_parts.localisation_weight * terms["localisation"]
        return {"loss": total, **(terms if self.columns else {})}

    @property
    def columns(self) -> tuple[str, ...]:
        """The terms of the loss, where there are several."""
        added = {"identity": self.identity_loss is not None, "localisation": bool(self.located)}
        return ("noise", *(name for name, there in added.items() if there)) if any(added.values()) else ()

    def _identity(self, batch: AnchoringBatch, noised: Tensor, predicted: Tensor) -> Tensor:
        """Return how unlike the person the prediction is, a scalar."""
        assert self.identity_loss is not None
        # Rows without identity have no person to compare. Steps are shuffled, so the first rows are a random choice.
        counted = ~batch.dropped & latents_recoverable(self.frozen[2], batch.steps)
        rows = torch.nonzero(counted)[: self.settings.identity.faces, 0]
        clean = clean_latents(self.frozen[2], noised[rows], predicted[rows], batch.steps[rows])
        return self.identity_loss(clean, batch.embeddings[rows], batch.alignments[rows])

    def noise_loss(self, batch: AnchoringBatch) -> Tensor:
        """Return the paper's noise-prediction loss, a scalar."""
        return self._noise_loss(batch, self._predict(batch)[1])

    def _predict(self, batch: AnchoringBatch, maps: TextMaps | None = None) -> tuple[Tensor, Tensor]:
        """Return the noised latents and what the base predicts for them; `maps` collects where it looks for words."""
        adapter, base, scheduler = self.frozen
        tokens, text = self._tokens(adapter, batch), batch.text
        if self.facial_encoder is not None:
            text = replace(text, states=self.facial_encoder(text.states, batch.part_states, batch.places))
        noised = scheduler.add_noise(batch.latents, batch.noise, batch.steps)
        return noised, prediction(base, noised, timesteps_of(scheduler, batch.steps), text, tokens, text_maps=maps)

    def _tokens(self, adapter: Adapter, batch: AnchoringBatch) -> Tensor:
        """Return the identity tokens of a batch, those of no identity where it was dropped."""
        if adapter.method.learned_null:
            tokens = adapter.identity_tokens(batch.embeddings, batch.states)
            return torch.where(batch.dropped[:, None, None], adapter.null_tokens, tokens)
        states = batch.states
        if self.empty is not None:
            states = torch.where(batch.dropped[:, None, None], self.empty.to(states), states)
        return adapter.identity_tokens(batch.embeddings * ~batch.dropped[:, None], states)

    def update_null_tokens(self) -> None:
        """Set null tokens that are not learned to those of the present weights."""
        self.frozen[0].encode_null_tokens(self.empty)

    def _noise_loss(self, batch: AnchoringBatch, predicted: Tensor) -> Tensor:
        settings, scheduler = self.settings, self.frozen[2]
        height, width = predicted.shape[-2:]
        return weighted_mse(
            predicted,
            noise_target(scheduler, batch.latents, batch.noise, batch.steps),
            face_weights(batch.boxes, height, width, settings.face_loss_weight),
            snr_weights(scheduler, batch.steps, settings.min_snr_gamma),
        )


def train_anchoring(
    base: Base,
    training: AnchoringData,
    probing: AnchoringData,
    settings: AnchoringSettings,
    run: Run,
    *,
    start: Path | None = None,
    recogniser: RecognitionNetwork | None = None,
) -> tuple[Adapter, LossCurve]:
    """Train an adapter on `training` and return it with averaged weights; `probing` are the photos of the fixed probe.

    Training starts from the adapter folder `start`, or else from new weights, whose projection of the embedding is
    first pretrained for `settings.projection_steps`. With a `recogniser` and `settings.identity.weight`, the identity
    term is added; the probe measures noise prediction alone. Raise ValueError without photos, or if sizes differ.
    """
    from accelerate.utils import set_seed

    accelerator = run.accelerator
    count = len(training.photos)
    if not count:
        raise ValueError("no photo to train on: expected rows with status ok in split train")
    set_seed(settings.seed)
    method = method_named(settings.method, "train_anchoring")
    sizes = sizes_for(method, settings.sizes) | settings.facial_parts.sizes()
    adapter = Adapter.create(base.denoiser, base.image_encoder, sizes, settings.gate_threshold, method)
    adapter.conventions = OURS.with_values({"hair": base.hair})
    if start is not None:
        trained = Adapter.load(start, base.denoiser)
        trained.check_trained_with(hair=base.hair, origin=start)
        initialise_from(adapter, trained, start)
    adapter.to(accelerator.device).train()
    if settings.projection_steps and start is None and run.checkpoint is None:
        pretrain_projection(
            adapter.face_encoder,
            (training.latents, training.faces),
            (probing.latents, probing.faces),
            steps=settings.projection_steps,
            seed=settings.seed,
            accelerator=accelerator,
        )
    adapter.attach(base.denoiser)
    encoded = method.image_states and not method.learned_null
    empty = empty_states(base.image_encoder) if encoded else None
    needed = training.networks | probing.networks
    offload_all_but_denoiser(base, gradient_checkpointing=settings.gradient_checkpointing, needed=needed)
    model = AnchoringModel(adapter, base, settings, recogniser, empty)
    total = int(base.scheduler.config.num_train_timesteps)
    drops = (settings.drop_text, settings.drop_identity, settings.drop_both)
    part = share_of(settings.batch_size, accelerator.process_index)

    def batch_of(step: int) -> AnchoringBatch:
        rows = positions(settings.seed, step, settings.batch_size * accelerator.num_processes, count)
        rng = generator(settings.seed, "anchoring", step)
        shift = decayed_shift(settings.noise_shift, step, settings.steps)
        return make_batch(training, rows, rng, stratified_steps(rng, len(rows), total, shift), drops, part=part)

    probes = _probe_batches(probing, settings, total)

    @torch.no_grad()
    def probe() -> float:
        # accelerate applies autocast only to the prepared model's `forward`.
        with accelerator.autocast():
            return float(np.mean([float(model.noise_loss(batch.to(accelerator.device))) for batch in probes]))

    curve = run_loop(
        adamw(model, settings, accelerator),
        make_batch=batch_of,
        losses=lambda ready, batch: ready(batch.to(accelerator.device)),
        probe=probe,
        settings=settings,
        run=run,
        label="anchoring",
        columns=model.columns,
        samples=_samples(base, model, probing) if settings.samples_every else None,
    )
    model.update_null_tokens()
    adapter.detach(base.denoiser)
    return adapter.eval(), curve


def _samples(base: Base, model: AnchoringModel, data: AnchoringData) -> SampleGrid:
    """Return the grid of photos and of what is drawn from their own tokens."""
    adapter: Adapter = model.frozen[0]
    people = [rows for rows in data.photos.by_person() if len(rows)] or list(np.arange(len(data.photos))[:, None])
    rows, device = some_of(people), base.device
    states = torch.zeros(len(rows), 0) if data.states is None else data.states.tensor(rows)
    faces = data.faces.embeddings(rows).to(device), states.to(device)
    prompts = data.photos.prompt[rows]
    prompted, empty = data.texts(prompts), data.texts(np.array([len(data.photos.prompts)]))

    def tokens() -> Tensor:
        model.update_null_tokens()
        return adapter.identity_tokens(*faces)

    def text() -> TextStates:
        if data.parts is None or adapter.facial_encoder is None:
            return prompted
        places = data.parts.places_of(prompts, np.zeros(len(rows), bool))
        shown = prompted.states, data.parts.states.tensor(rows), places
        return TextStates(adapter.facial_encoder(*(one.to(device) for one in shown)), prompted.pooled.to(device))

    return SampleGrid(base, adapter, data.photos, [rows], text, empty, tokens)


def _probe_batches(data: AnchoringData, settings: AnchoringSettings, total: int) -> list[AnchoringBatch]:
    """Return fixed photos with fixed noise, at steps spread evenly over the noise schedule; nothing is dropped."""
    count = min(settings.probe_photos, len(data.photos))
    rng = generator(_PROBE_SEED, "probe", 0)
    rows = np.sort(rng.choice(len(data.photos), count, replace=False))
    steps = ((rng.permutation(count) + 0.5) / count * total).astype(np.int64)
    size = settings.batch_size
    return [
        make_batch(data, rows[start : start + size], rng, steps[start : start + size], (0.0, 0.0, 0.0))
        for start in range(0, count, size)
    ]

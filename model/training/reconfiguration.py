"""Reconfiguration: the IMR learns to change the motion in a person's identity tokens (paper section 3.4).

Everything else is frozen, so the identity tokens of every photo are computed once. A step takes one photo of a person
as the source and others as targets: L = MSE(ξ_pred, ξ_tgt) + λ · MSE(ε(x_t, ξ_pred), ε(x_t, ξ_tgt)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.adapter import Adapter
from model.network.base import Base
from model.network.landmark_encoder import LandmarkEncoder
from model.network.reconfigurator import Reconfigurator
from model.network.text_encoding import TextStates
from model.training.baselines import ReconfigurationBatch, baseline_batches, compare_with_baselines
from model.training.curve import LossCurve
from model.training.encode import FORMATS, RecordEncoder, base_digest
from model.training.loop import Run, run_loop
from model.training.losses import prediction
from model.training.motion import Motion, face_prompt_states, template_bank
from model.training.noise_schedule import noise_schedule_of, timesteps_of
from model.training.optimisation import adamw
from model.training.photos import UNKNOWN, Photos
from model.training.records import Records, Source, TextRecords
from model.training.runtime import Batch, offload_all_but_denoiser
from model.training.samples import SampleGrid, some_of
from model.training.seeded_draws import generator, normal, positions, share_of, stratified_steps
from model.training.settings import ReconfigurationSettings


@dataclass(frozen=True)
class ReconfigurationData:
    """The data of one split: identity tokens, motion, and latents and text states for the noise term."""

    photos: Photos
    tokens: Records
    motion: Motion
    latents: Records
    texts: TextRecords

    @property
    def networks(self) -> set[str]:
        """The base models that are needed to compute records."""
        return {name for records in (self.tokens, self.latents, self.texts.records) for name in records.networks}


def require_identities(photos: Photos, origin: str) -> None:
    """Raise ValueError if any photo has no known identity, or if no person has two photos."""
    unknown = int((photos.person == UNKNOWN).sum())
    if unknown:
        raise ValueError(
            f"{origin}: {unknown} of {len(photos)} photos have no known identity, and the IMR learns from several "
            "photos of one person: group them with `dynamicid curate`, or leave them out"
        )
    if not any(len(rows) > 1 for rows in photos.by_person()):
        raise ValueError(f"{origin}: no person has two usable photos; the IMR learns from several photos of one person")


def reconfiguration_data(
    base: Base,
    adapter: Adapter,
    photos: Photos,
    encoder: RecordEncoder,
    *,
    resolution: int,
    adapter_digest: str,
    bank: np.ndarray | None = None,
) -> ReconfigurationData:
    """Return the data of `photos`; without `bank`, build templates from them.

    What is not in the cache is computed when it is drawn. Raise ValueError if the disk has no room for all of it.
    """
    states, faces = encoder.clip_states(base, photos), encoder.faces(photos)

    @torch.no_grad()
    def encode(rows: list[int]) -> np.ndarray:
        chosen = np.array(rows)
        device = adapter.null_tokens.device
        tokens = adapter.identity_tokens(faces.embeddings(chosen).to(device), states.tensor(chosen).to(device))
        return tokens.float().cpu().numpy()

    # Tokens have the rounding of the states that they are made from.
    rounding = encoder.format_of("clip")
    parts = adapter_digest, base_digest(base), *(() if rounding == FORMATS["clip"] else (rounding,))
    source = Source(lambda rows: iter(rows.tolist()), encode, encoder.batch, states.source.networks)
    tokens = encoder.records("identity_tokens", parts, photos.keys, (adapter.sizes["tokens"], adapter.width), source)
    latents, texts = encoder.latents(base, photos, resolution), encoder.texts(base, photos.prompts)
    needed = latents, texts.records, faces.records
    encoder.require_space(*((states, tokens, *needed) if tokens.missing else needed))
    bank = template_bank(photos, faces) if bank is None else bank
    return ReconfigurationData(photos, tokens, Motion(photos, faces, face_prompt_states(base), bank), latents, texts)


@dataclass(frozen=True)
class NoiseTermBatch(Batch):
    """N targets for the noise term: `targets` (N,), their indices in the batch; latents, noise, steps and text."""

    targets: Tensor
    latents: Tensor
    noise: Tensor
    steps: Tensor
    text: TextStates


def make_batch(
    data: ReconfigurationData, sources: np.ndarray, targets: np.ndarray, templates: np.ndarray
) -> ReconfigurationBatch:
    """Return `sources` (P,) with `targets` (P, T), whose landmarks are templates where `templates` (P, T) is true."""
    pictures = [
        data.motion.target_pictures(int(source), rows, chosen)
        for source, rows, chosen in zip(sources, targets, templates, strict=True)
    ]
    flat = targets.reshape(-1)
    return ReconfigurationBatch(
        tokens=data.tokens.tensor(sources),
        source_landmarks=data.motion.landmark_pictures(sources),
        source_text=data.motion.text(sources),
        target_landmarks=torch.cat(pictures),
        target_text=data.motion.text(flat),
        expected=data.tokens.tensor(flat),
    )


class Sampler:
    """Choose the people, sources and targets of a step, and the targets of its noise term."""

    def __init__(
        self, data: ReconfigurationData, settings: ReconfigurationSettings, *, total: int, rank: int, world: int
    ) -> None:
        self.data, self.settings = data, settings
        self.total, self.rank, self.world = total, rank, world
        self.people = [rows for rows in data.photos.by_person() if len(rows) > 1]

    def __call__(self, step: int) -> tuple[ReconfigurationBatch, NoiseTermBatch | None]:
        """Return the batch of a step and that of its noise term, or None: pure functions of seed, step and process.

        Several processes draw the people and targets of the whole step alike, and the noise term of each its own.
        """
        settings = self.settings
        rng = generator(settings.seed, "reconfiguration", step)
        chosen = positions(settings.seed, step, settings.batch_size * self.world, len(self.people))
        shuffled = [rng.permutation(self.people[person]) for person in chosen]
        # The person with the fewest photos limits the number of targets for all sources of the step.
        helpers = min(settings.helpers, *(len(rows) - 1 for rows in shuffled))
        sources = np.array([rows[0] for rows in shuffled])
        targets = np.stack([rows[1 : helpers + 1] for rows in shuffled])
        templates = rng.random(targets.shape) < settings.template_share
        part = share_of(settings.batch_size, self.rank)
        batch = make_batch(self.data, sources[part], targets[part], templates[part])
        if settings.ldc_weight == 0 or step % settings.ldc_every:
            return batch, None
        own = rng if self.world == 1 else generator(settings.seed, "noise term", step, self.rank)
        return batch, self._noised(own, targets[part].reshape(-1))

    def _noised(self, rng: np.random.Generator, targets: np.ndarray) -> NoiseTermBatch:
        count = min(self.settings.ldc_targets, len(targets))
        chosen = np.sort(rng.choice(len(targets), count, replace=False))
        rows = targets[chosen]
        latents = self.data.latents.tensor(rows)
        return NoiseTermBatch(
            targets=torch.from_numpy(chosen),
            latents=latents,
            noise=torch.from_numpy(normal(rng, tuple(latents.shape))),
            steps=torch.from_numpy(stratified_steps(rng, count, self.total)),
            text=self.data.texts(self.data.photos.prompt[rows]),
        )


class ReconfigurationModel(nn.Module):
    """Trainable IMR and landmark encoder; frozen parts are not registered, so that no checkpoint contains them."""

    def __init__(self, adapter: Adapter, base: Base, settings: ReconfigurationSettings) -> None:
        super().__init__()
        self.reconfigurator = adapter.reconfigurator
        self.landmark_encoder = adapter.landmark_encoder
        self.frozen = (adapter, base, noise_schedule_of(base))
        self.settings = settings

    def forward(self, batch: ReconfigurationBatch, noised: NoiseTermBatch | None = None) -> dict[str, Tensor]:
        """Return scalar losses by name: `loss` (their weighted sum), `tokens` and, with `noised`, `noise`."""
        adapter: Adapter = self.frozen[0]
        predicted = batch.predict(adapter)
        tokens = F.mse_loss(predicted.float(), batch.expected)
        if noised is None:
            return {"loss": tokens, "tokens": tokens}
        by_predicted = self._noise(predicted[noised.targets], noised)
        with torch.no_grad():
            by_expected = self._noise(batch.expected[noised.targets], noised)
        noise = F.mse_loss(by_predicted, by_expected)
        return {"loss": tokens + self.settings.ldc_weight * noise, "tokens": tokens, "noise": noise}

    def _noise(self, tokens: Tensor, noised: NoiseTermBatch) -> Tensor:
        """Return the base's float32 prediction for `noised` with these identity tokens."""
        _, base, scheduler = self.frozen
        states = scheduler.add_noise(noised.latents, noised.noise, noised.steps)
        return prediction(base, states, timesteps_of(scheduler, noised.steps), noised.text, tokens).float()


def _samples(base: Base, adapter: Adapter, data: ReconfigurationData) -> SampleGrid:
    """Return the grid of sources, of other photos of the same people, and of sources drawn with the motion of these."""
    several = [rows for rows in data.photos.by_person() if len(rows) > 1]
    sources, targets = some_of([rows[:1] for rows in several]), some_of(several, 1)
    batch = make_batch(data, sources, targets[:, None], np.ones((len(sources), 1), bool)).to(base.device)
    text, empty = data.texts(data.photos.prompt[targets]), base.text_states([""]).to("cpu", torch.float32)
    shown = [sources, targets]
    return SampleGrid(base, adapter, data.photos, shown, lambda: text, empty, lambda: batch.predict(adapter))


def initialise_from(adapter: Adapter, other: Adapter, origin: Path) -> None:
    """Set the IMR and landmark encoder of `adapter` to those of `other`.

    Raise ValueError, naming `origin`, if `other` has none or they have other sizes.
    """
    (theirs, its_landmarks), (own, landmarks) = _imr(other), _imr(adapter)
    if theirs is None or its_landmarks is None or own is None or landmarks is None:
        raise ValueError(f"{origin}: this adapter has no IMR to start from; start from new weights (start_from: null)")
    found, wanted = (
        {
            **{name: size for name, size in one.sizes.items() if name != "lora_rank"},
            "width": one.width,
            "residual": imr.residual,
        }
        for one, imr in ((other, theirs), (adapter, own))
    )
    differing = [f"{name} {found[name]}, here {value}" for name, value in wanted.items() if found[name] != value]
    if differing:
        raise ValueError(
            f"{origin}: the IMR of this adapter has other sizes ({'; '.join(differing)}); start from new weights, or "
            "use its sizes"
        )
    own.load_state_dict(theirs.state_dict())
    landmarks.load_state_dict(its_landmarks.state_dict())


def _imr(adapter: Adapter) -> tuple[Reconfigurator | None, LandmarkEncoder | None]:
    return adapter.reconfigurator, adapter.landmark_encoder


def train_reconfiguration(
    base: Base,
    adapter: Adapter,
    training: ReconfigurationData,
    probing: ReconfigurationData | None,
    *,
    settings: ReconfigurationSettings,
    run: Run,
    start: Path | None = None,
) -> tuple[LossCurve, Mapping[str, Any]]:
    """Add an IMR trained on `training` (averaged weights), and the templates, to `adapter`, already on its device.

    Training starts from the IMR of the adapter folder `start`, or else from new weights. Return the curve and the
    comparison with the baselines on the held-out people of `probing`. Without `probing`, the comparison is empty and
    the probe is measured on training people. Raise ValueError if the IMR of `start` is missing or of another shape.
    """
    from accelerate.utils import set_seed

    device = run.accelerator.device
    set_seed(settings.seed)
    adapter.requires_grad_(False)
    adapter.add_reconfigurator(residual=settings.residual)
    if start is not None:
        initialise_from(adapter, Adapter.load(start, base.denoiser), start)
    adapter.templates = torch.from_numpy(training.motion.bank).to(device)
    adapter.eval()
    adapter.attach(base.denoiser)
    needed = training.networks | (set() if probing is None else probing.networks)
    offload_all_but_denoiser(base, gradient_checkpointing=settings.gradient_checkpointing, needed=needed)
    model = ReconfigurationModel(adapter, base, settings)
    sampler = Sampler(
        training,
        settings,
        total=int(base.scheduler.config.num_train_timesteps),
        rank=run.accelerator.process_index,
        world=run.accelerator.num_processes,
    )

    def losses(ready: nn.Module, pair: tuple[ReconfigurationBatch, NoiseTermBatch | None]) -> Mapping[str, Tensor]:
        ready.train()
        batch, noised = pair
        return ready(batch.to(device), None if noised is None else noised.to(device))

    batches = baseline_batches(probing or training, make_batch)

    def comparison() -> Mapping[str, float]:
        model.eval()
        return compare_with_baselines(adapter, batches, device)

    curve = run_loop(
        adamw(model, settings, run.accelerator),
        make_batch=sampler,
        losses=losses,
        probe=lambda: comparison()["imr"],
        settings=settings,
        run=run,
        label="reconfiguration",
        columns=("tokens", "noise"),
        samples=_samples(base, adapter, probing or training) if settings.samples_every else None,
    )
    adapter.detach(base.denoiser)
    adapter.eval()
    return curve, comparison() if probing is not None else {}

"""Reconfiguration: the IMR learns to give a person's identity tokens another motion (paper section 3.4).

Everything else is frozen, so the identity tokens of every photo are computed once. One step takes one photo of a
person as the source and others as targets: L = MSE(ξ_pred, ξ_tgt) + λ · MSE(ε(x_t, ξ_pred), ε(x_t, ξ_tgt)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.adapter import Adapter
from model.network.base import Base
from model.training.cache import RecordStore, store_folder
from model.training.curve import LossCurve
from model.training.descent import adamw
from model.training.encode import Desk, Records, base_digest, clip_records, face_records, latent_records, text_records
from model.training.loop import Run, run_loop
from model.training.losses import prediction
from model.training.motion import Motion, face_prompt_states, template_bank
from model.training.photos import UNKNOWN, Photos
from model.training.runtime import Batch, leave_the_unet
from model.training.schedule import generator, normal, positions, spread
from model.training.settings import ReconfigurationSettings
from model.training.trivial_answers import Trial, compare, held_out_trials

_VERSION = 1


@dataclass(frozen=True)
class ReconfigurationData:
    """What training reads of one split: identity tokens, motion, and for the noise term latents and text states."""

    photos: Photos
    tokens: Records
    motion: Motion
    latents: Records
    texts: Records


def require_identities(photos: Photos, origin: str) -> None:
    """Raise ValueError where photos have no known identity or no person has two."""
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
    desk: Desk,
    *,
    resolution: int,
    adapter_digest: str,
    bank: np.ndarray | None = None,
) -> ReconfigurationData:
    """Compute what is not in the cache yet; without `bank` the templates are built from these photos."""
    states, faces = clip_records(base, photos, desk), face_records(photos, desk)

    @torch.no_grad()
    def encode(rows: list[int]) -> np.ndarray:
        chosen = np.array(rows)
        device = adapter.null_tokens.device
        found = adapter.identity_tokens(faces.embeddings(chosen).to(device), states.tensor(chosen).to(device))
        return found.float().cpu().numpy()

    shape = (adapter.sizes["tokens"], adapter.width)
    folder = store_folder(desk.root, "identity_tokens", _VERSION, adapter_digest, base_digest(base))
    store = RecordStore(folder, shape, "float32")
    tokens = desk.fill(store, photos.keys, lambda rows: iter(rows.tolist()), encode, "identity tokens")
    bank = template_bank(photos, faces) if bank is None else bank
    return ReconfigurationData(
        photos,
        tokens,
        Motion(photos, faces, face_prompt_states(base), bank),
        latent_records(base, photos, desk, resolution),
        text_records(base, photos.prompts, desk),
    )


@dataclass(frozen=True)
class Noised(Batch):
    """What the noise term is computed on: `targets` (K,) of the step's targets, their latents, noise, steps, text."""

    targets: Tensor
    latents: Tensor
    noise: Tensor
    steps: Tensor
    text: Tensor


def make_trial(data: ReconfigurationData, sources: np.ndarray, targets: np.ndarray, templates: np.ndarray) -> Trial:
    """Return sources (P,), each with its targets (P, T), as the IMR takes them; `templates` (P, T) is bool."""
    pictures = [
        data.motion.target_pictures(int(source), rows, chosen)
        for source, rows, chosen in zip(sources, targets, templates, strict=True)
    ]
    flat = targets.reshape(-1)
    return Trial(
        tokens=data.tokens.tensor(sources),
        source_landmarks=data.motion.own_pictures(sources),
        source_text=data.motion.text(sources),
        target_landmarks=torch.cat(pictures),
        target_text=data.motion.text(flat),
        expected=data.tokens.tensor(flat),
    )


class Sampler:
    """Which people, sources and targets a step takes, and on which targets the noise term is computed."""

    def __init__(
        self, data: ReconfigurationData, settings: ReconfigurationSettings, *, total: int, rank: int, world: int
    ) -> None:
        self.data, self.settings = data, settings
        self.total, self.rank, self.world = total, rank, world
        self.people = [rows for rows in data.photos.by_person() if len(rows) > 1]

    def __call__(self, step: int) -> tuple[Trial, Noised | None]:
        """Return the batch of a step, a pure function of the seed."""
        settings = self.settings
        rng = generator(settings.seed, "reconfiguration", step, self.rank)
        chosen = positions(settings.seed, step, settings.batch_size, len(self.people), rank=self.rank, world=self.world)
        shuffled = [rng.permutation(self.people[person]) for person in chosen]
        # Every source of a step has as many targets as the person with the fewest photos can give.
        helpers = min(settings.helpers, *(len(rows) - 1 for rows in shuffled))
        sources = np.array([rows[0] for rows in shuffled])
        targets = np.stack([rows[1 : helpers + 1] for rows in shuffled])
        trial = make_trial(self.data, sources, targets, rng.random(targets.shape) < settings.template_share)
        if settings.ldc_weight == 0 or step % settings.ldc_every:
            return trial, None
        return trial, self._noised(rng, targets.reshape(-1))

    def _noised(self, rng: np.random.Generator, targets: np.ndarray) -> Noised:
        count = min(self.settings.ldc_targets, len(targets))
        chosen = np.sort(rng.choice(len(targets), count, replace=False))
        rows = targets[chosen]
        latents = self.data.latents.tensor(rows)
        return Noised(
            targets=torch.from_numpy(chosen),
            latents=latents,
            noise=torch.from_numpy(normal(rng, tuple(latents.shape))),
            steps=torch.from_numpy(spread(rng, count, self.total)),
            text=self.data.texts.tensor(self.data.photos.prompt[rows]),
        )


class ReconfigurationModel(nn.Module):
    """IMR and landmark encoder, trainable, around the frozen rest, which is held but not registered."""

    def __init__(self, adapter: Adapter, base: Base, settings: ReconfigurationSettings) -> None:
        super().__init__()
        from diffusers import DDPMScheduler

        self.reconfigurator = adapter.reconfigurator
        self.landmark_encoder = adapter.landmark_encoder
        self.frozen = (adapter, base.unet, DDPMScheduler.from_config(base.scheduler.config))
        self.settings = settings

    def forward(self, trial: Trial, noised: Noised | None = None) -> dict[str, Tensor]:
        """Return the losses by name, scalars: `loss`, `tokens` and, where it is computed, `noise`."""
        adapter: Adapter = self.frozen[0]
        predicted = trial.answer(adapter)
        tokens = F.mse_loss(predicted.float(), trial.expected)
        if noised is None:
            return {"loss": tokens, "tokens": tokens}
        asked = self._noise(predicted[noised.targets], noised)
        with torch.no_grad():
            wanted = self._noise(trial.expected[noised.targets], noised)
        noise = F.mse_loss(asked, wanted)
        return {"loss": tokens + self.settings.ldc_weight * noise, "tokens": tokens, "noise": noise}

    def _noise(self, tokens: Tensor, noised: Noised) -> Tensor:
        """Return what the UNet predicts with these tokens, float32: same photo, noise, step and prompt every time."""
        _, unet, scheduler = self.frozen
        states = scheduler.add_noise(noised.latents, noised.noise, noised.steps)
        return prediction(unet, states, noised.steps, noised.text, tokens).float()


def train_reconfiguration(
    base: Base,
    adapter: Adapter,
    training: ReconfigurationData,
    probing: ReconfigurationData | None,
    *,
    settings: ReconfigurationSettings,
    run: Run,
) -> tuple[LossCurve, Mapping[str, Any]]:
    """Give `adapter`, already on its device, an IMR trained on `training`, with averaged weights, and its templates.

    Returns the curve and the comparison with the trivial answers on `probing`, people of no training set; without any
    the comparison is empty and the probe is measured on training people.
    """
    from accelerate.utils import set_seed

    device = run.accelerator.device
    set_seed(settings.seed)
    adapter.requires_grad_(False)
    adapter.add_reconfigurator(residual=settings.residual)
    adapter.templates = torch.from_numpy(training.motion.bank).to(device)
    adapter.eval()
    adapter.attach(base.unet)
    leave_the_unet(base, gradient_checkpointing=settings.gradient_checkpointing)
    model = ReconfigurationModel(adapter, base, settings)
    sampler = Sampler(
        training,
        settings,
        total=int(base.scheduler.config.num_train_timesteps),
        rank=run.accelerator.process_index,
        world=run.accelerator.num_processes,
    )

    def losses(ready: nn.Module, batch: tuple[Trial, Noised | None]) -> Mapping[str, Tensor]:
        ready.train()
        trial, noised = batch
        return ready(trial.to(device), None if noised is None else noised.to(device))

    trials = held_out_trials(probing or training, make_trial)

    def answers() -> Mapping[str, float]:
        model.eval()
        return compare(adapter, trials, device)

    curve = run_loop(
        adamw(model, settings, run.accelerator),
        make_batch=sampler,
        losses=losses,
        probe=lambda: answers()["imr"],
        settings=settings,
        run=run,
        label="reconfiguration",
        columns=("tokens", "noise"),
    )
    adapter.detach(base.unet)
    adapter.eval()
    return curve, answers() if probing is not None else {}

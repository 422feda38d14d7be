"""Targets and weights of the noise-prediction loss."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from model.training.losses import (
    clean_latents,
    face_weights,
    latents_recoverable,
    noise_target,
    snr_weights,
    weighted_mse,
)
from model.training.noise_schedule import FlowMatching, timesteps_of


def scheduler(kind: str, **options: object) -> DDPMScheduler:
    return DDPMScheduler(prediction_type=kind, **options)


def test_flow_matching_is_that_of_its_sampler() -> None:
    torch.manual_seed(0)
    schedule, sampler = FlowMatching(1000), FlowMatchEulerDiscreteScheduler()
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    steps = torch.tensor([9, 399, 999])
    noised = schedule.add_noise(latents, noise, steps)
    torch.testing.assert_close(noised, sampler.scale_noise(latents, timesteps_of(schedule, steps).float(), noise))
    target = noise_target(schedule, latents, noise, steps)
    torch.testing.assert_close(clean_latents(schedule, noised, target, steps), latents)
    assert latents_recoverable(schedule, steps).all()
    # The error of the latents is σ² times that of the prediction.
    sigma = torch.tensor([0.01, 0.4, 1.0])
    clipped = ((1 - sigma) / sigma).square().clamp_max(5)
    torch.testing.assert_close(snr_weights(schedule, steps, 5.0) / sigma.square(), clipped)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_latents_are_recovered_from_the_target(kind: str) -> None:
    torch.manual_seed(0)
    schedule = scheduler(kind, clip_sample=False)
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    steps = torch.tensor([10, 400, 700])
    noised = schedule.add_noise(latents, noise, steps)
    target = noise_target(schedule, latents, noise, steps)
    for number, step in enumerate(steps):
        found = schedule.step(target[number : number + 1], int(step), noised[number : number + 1]).pred_original_sample
        torch.testing.assert_close(found[0], latents[number], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(clean_latents(schedule, noised, target, steps), latents, atol=1e-3, rtol=1e-3)


def test_without_signal_latents_are_not_recoverable_and_weights_finite() -> None:
    steps = torch.tensor([0, 500, 999])
    for kind, expected in (("epsilon", [True, True, False]), ("v_prediction", [True] * 3), ("sample", [True] * 3)):
        schedule = scheduler(kind, rescale_betas_zero_snr=True)
        assert latents_recoverable(schedule, steps).tolist() == expected, kind
        clean = clean_latents(schedule, torch.ones(3, 1, 1, 1), torch.ones(3, 1, 1, 1), steps)
        assert torch.isfinite(clean).all()
        assert torch.isfinite(snr_weights(schedule, steps, 5.0)).all()


def test_every_prediction_type_has_the_same_weight_in_terms_of_the_latents() -> None:
    steps = torch.tensor([5, 300, 800])
    snr = scheduler("epsilon").alphas_cumprod[steps] / (1 - scheduler("epsilon").alphas_cumprod[steps])
    clipped = snr.clamp_max(5)
    torch.testing.assert_close(snr_weights(scheduler("epsilon"), steps, 5.0) * snr, clipped)
    torch.testing.assert_close(snr_weights(scheduler("v_prediction"), steps, 5.0) * (snr + 1), clipped)
    torch.testing.assert_close(snr_weights(scheduler("sample"), steps, 5.0), clipped)
    assert torch.equal(snr_weights(scheduler("epsilon"), steps, None), torch.ones(3))


def test_cells_in_the_box_weigh_more() -> None:
    weights = face_weights(torch.tensor([[0.25, 0.0, 0.75, 0.5]]), 4, 4, 3.0)
    assert weights.shape == (1, 1, 4, 4)
    expected = torch.ones(4, 4)
    expected[0:2, 1:3] = 3
    assert torch.equal(weights[0, 0], expected)


def test_weights_do_not_change_the_size_of_an_even_error() -> None:
    cells = face_weights(torch.tensor([[0.0, 0.0, 0.5, 1.0]]).repeat(2, 1), 4, 4, 5.0)
    predicted, target = torch.full((2, 4, 4, 4), 2.0), torch.zeros(2, 4, 4, 4)
    assert weighted_mse(predicted, target, cells, torch.ones(2)).item() == pytest.approx(4.0)
    predicted[:, :, :, :2] = 0  # no error in the face, whose weight is 5
    assert weighted_mse(predicted, target, cells, torch.ones(2)).item() == pytest.approx(4.0 / 6)

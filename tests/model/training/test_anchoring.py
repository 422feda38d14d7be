"""Anchoring trains only the adapter's parts, from the caches, in any precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.foundation.random_models import RandomModels
from model.network.adapter import Adapter
from model.network.base import Base, BaseReference, empty_states, load_base
from model.network.methods import METHODS
from model.training import anchoring
from model.training.anchoring import AnchoringBatch, AnchoringData, AnchoringModel, make_batch, train_anchoring
from model.training.loop import Run
from model.training.optimisation import adamw
from model.training.runtime import offload_all_but_denoiser
from model.training.seeded_draws import generator, share_of, stratified_steps
from pipelines.core.sections.training import FaceEncoderSize, TrainAnchoring

# The section of the parameter file itself, so that missing parameters fail here.
SETTINGS = TrainAnchoring(
    steps=2,
    learning_rate=1e-2,
    weight_decay=0.0,
    ema_decay=0.0,
    checkpoint_every=10,
    log_every=1,
    batch_size=2,
    drop_text=0.0,
    drop_identity=0.25,
    drop_both=0.25,
    probe_photos=2,
    sizes=FaceEncoderSize(lora_rank=4, reconfigurator_width=64, reconfigurator_heads=4, landmark_features=32),
)


def batch_of(data: AnchoringData) -> AnchoringBatch:
    """Four photos at four noise levels, one of them without identity."""
    rng = generator(0, "test", 1)
    batch = make_batch(data, np.arange(4), rng, np.array([50, 300, 600, 900]), (0.0, 0.0, 0.0))
    return replace(batch, dropped=torch.tensor([False, True, False, False]))


def test_two_processes_take_the_halves_of_the_batch_of_one(data: AnchoringData) -> None:
    rows, steps = np.arange(4), np.array([50, 300, 600, 900])
    whole, *parts = (
        make_batch(data, rows, generator(0, "test", 1), steps, (0.2, 0.2, 0.2), part=part)
        for part in (slice(None), share_of(2, 0), share_of(2, 1))
    )
    whole, *parts = ({**vars(batch), "text": batch.text.states} for batch in (whole, *parts))
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), value, atol=0, rtol=0, msg=name)


def model_on(base: Base, make_adapter: Callable[..., Adapter], *, checkpointing: bool = False) -> AnchoringModel:
    adapter = make_adapter(base, imr=False).train()
    adapter.attach(base.unet)
    offload_all_but_denoiser(base, gradient_checkpointing=checkpointing)
    return AnchoringModel(adapter, base, SETTINGS)


def gradients(model: AnchoringModel, batch: AnchoringBatch) -> tuple[float, dict[str, torch.Tensor], int]:
    """Return the loss, the gradients by name, and the bytes kept for the backward pass outside checkpointed blocks."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(batch)["loss"]
    loss.backward()
    return float(loss.detach()), {name: value.grad for name, value in model.named_parameters()}, kept


def test_only_the_adapters_parts_are_trained(
    base: Base, data: AnchoringData, make_adapter: Callable[..., Adapter], accelerator: Callable[[str], Any]
) -> None:
    model = model_on(base, make_adapter)
    adapter = model.frozen[0]
    optimisation = adamw(model, SETTINGS, accelerator("no"))
    trained = {id(parameter) for group in optimisation.optimizer.param_groups for parameter in group["params"]}
    parts = adapter.face_encoder, adapter.processors
    assert trained == {id(adapter.null_tokens), *(id(parameter) for part in parts for parameter in part.parameters())}
    names = {name.rpartition(".")[0].rpartition(".")[2] or name for name, _ in adapter.processors.named_parameters()}
    assert names == {"down", "up", "to_k_ip", "to_v_ip"}
    frozen = {name: value.clone() for name, value in base.unet.state_dict().items() if ".processor." not in name}
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for _ in range(2):
        optimisation.step(optimisation.ready(batch_of(data))["loss"])
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not still
    for name, value in base.unet.state_dict().items():
        assert name not in frozen or torch.equal(value, frozen[name]), name
    assert all(parameter.grad is None for name, parameter in base.unet.named_parameters() if ".processor." not in name)


def test_gradient_checkpointing_changes_the_memory_and_nothing_else(
    random_models: RandomModels, data: AnchoringData, make_adapter: Callable[..., Adapter]
) -> None:
    found = []
    for checkpointing in (False, True):
        base = load_base(random_models.pipeline, random_models.image_encoder)
        found.append(gradients(model_on(base, make_adapter, checkpointing=checkpointing), batch_of(data)))
    (loss, plain, kept), (same_loss, checkpointed, kept_less) = found
    assert same_loss == loss
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-5, msg=name)
    assert kept_less < 0.5 * kept


def test_mixed_precision_keeps_single_precision_weights(
    random_models: RandomModels,
    data: AnchoringData,
    make_adapter: Callable[..., Adapter],
    accelerator: Callable[[str], Any],
) -> None:
    whole = model_on(load_base(random_models.pipeline, random_models.image_encoder), make_adapter)
    expected, reference, _ = gradients(whole, batch_of(data))
    half = load_base(random_models.pipeline, random_models.image_encoder, dtype="bfloat16")
    model = model_on(half, make_adapter)
    # Without this, weights differ: k' and v' were copied from a rounded UNet.
    model.load_state_dict(whole.state_dict())
    optimisation = adamw(model, SETTINGS, accelerator("bf16"))
    assert model.frozen[1].unet.dtype == torch.bfloat16
    loss = optimisation.ready(batch_of(data))["loss"]
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(expected, rel=0.02)
    loss.backward()
    every = torch.cat([value.grad.flatten() for _, value in model.named_parameters()])
    assert every.dtype == torch.float32
    cosine = torch.cosine_similarity(every, torch.cat([x.flatten() for x in reference.values()]), dim=0)
    assert float(cosine) > 0.98
    optimisation.step(optimisation.ready(batch_of(data))["loss"])
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in model.parameters())


def test_training_does_not_run_the_encoders(base: Base, data: AnchoringData, start: Callable[..., Run]) -> None:
    def refuse(module: Any, *_: Any) -> None:
        raise AssertionError(f"{type(module).__name__} was run, but its outputs are in the cache")

    for network in (base.vae, base.text_encoder, base.image_encoder):
        for part in network.modules():
            part.register_forward_pre_hook(refuse)
    adapter, curve = train_anchoring(base, data, data, SETTINGS, start())
    assert [row["step"] for row in curve.rows] == [1, 2]
    assert curve.rows[-1]["probe"] != curve.start
    assert not adapter.training


def test_the_shift_of_noise_steps_decays_to_one(
    base: Base, data: AnchoringData, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    shifts: list[float] = []

    def watched(rng: np.random.Generator, count: int, total: int, shift: float) -> np.ndarray:
        shifts.append(round(shift, 6))
        return stratified_steps(rng, count, total, shift)

    monkeypatch.setattr(anchoring, "stratified_steps", watched)
    train_anchoring(base, data, data, SETTINGS.model_copy(update={"noise_shift": 16.0, "steps": 4}), start())
    assert shifts == [16.0, 8.0, 4.0, 2.0]


def test_half_precision_trains_and_probes(
    random_models: RandomModels, data: AnchoringData, start: Callable[..., Run]
) -> None:
    half = load_base(random_models.pipeline, random_models.image_encoder, dtype="bfloat16")
    _, curve = train_anchoring(half, data, data, SETTINGS, start("bf16"))
    assert curve.start is not None
    assert np.isfinite([curve.start, *(row["probe"] for row in curve.rows)]).all()


OTHERS = ("ip_adapter_faceid", "ip_adapter_faceid_plus")


def of(method: str, **changes: Any) -> TrainAnchoring:
    return SETTINGS.model_copy(update={"method": method, **changes})


def only_embeddings(data: AnchoringData, method: str) -> AnchoringData:
    return data if METHODS[method].image_states else replace(data, states=None)


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_train_without_gate_and_encode_their_null_tokens(
    base: Base, data: AnchoringData, start: Callable[..., Run], method: str
) -> None:
    """The null tokens are those of the last weights for an embedding of zeros and no picture."""
    shown = only_embeddings(data, method)
    adapter, curve = train_anchoring(base, shown, shown, of(method, drop_identity=0.9, drop_both=0.1), start())
    assert adapter.method.name == method
    assert [row["step"] for row in curve.rows] == [1, 2]
    states = empty_states(base.image_encoder)
    torch.testing.assert_close(adapter.null_tokens, adapter.identity_tokens(torch.zeros(1, 512), states))
    untrained = Adapter.create(base.unet, base.image_encoder, SETTINGS.sizes, method=METHODS[method])
    torch.manual_seed(SETTINGS.seed)
    changed = {name for name, value in adapter.state_dict().items() if value.abs().sum() and ".up." in name}
    assert len(changed) == sum(".up." in name for name in untrained.state_dict())


@pytest.mark.parametrize("method", OTHERS)
def test_dropped_rows_have_the_tokens_of_no_face(base: Base, data: AnchoringData, method: str) -> None:
    adapter = Adapter.create(base.unet, base.image_encoder, SETTINGS.sizes, method=METHODS[method])
    encoded = METHODS[method].image_states
    model = AnchoringModel(adapter, base, of(method), empty=empty_states(base.image_encoder) if encoded else None)
    assert not any(name.startswith("null_tokens") for name, _ in model.named_parameters())
    batch = batch_of(only_embeddings(data, method))
    found = model._tokens(adapter, batch)
    model.update_null_tokens()
    torch.testing.assert_close(found[1:2], adapter.null_tokens, atol=1e-6, rtol=1e-5)
    own = adapter.identity_tokens(batch.embeddings, batch.states)
    torch.testing.assert_close(found[[0, 2, 3]], own[[0, 2, 3]], atol=1e-6, rtol=1e-5)


def test_another_methods_adapter_is_no_start(
    base: Base, data: AnchoringData, start: Callable[..., Run], tmp_path: Path
) -> None:
    plus = Adapter.create(base.unet, base.image_encoder, SETTINGS.sizes, method=METHODS["ip_adapter_faceid_plus"])
    plus.save(tmp_path / "plus", BaseReference("sd", "clip", "0" * 64))
    with pytest.raises(ValueError, match=r"plus: .*method ip_adapter_faceid_plus, here dynamicid.*start from scratch"):
        train_anchoring(base, data, data, SETTINGS, start(), start=tmp_path / "plus")

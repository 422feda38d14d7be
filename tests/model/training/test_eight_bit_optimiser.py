"""The optimiser with a state of one byte per moment: smaller, nearly the same steps, exactly resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.foundation.random_models import RandomModels
from model.network.base import load_base
from model.training.anchoring import AnchoringData, train_anchoring
from model.training.loop import Run
from model.training.optimisation import Optimisation, adamw
from model.training.resume import Checkpoints
from pipelines.core.sections.training import FaceEncoderSize, TrainAnchoring

# The extra eight-bit, which the nightly workflow installs.
pytest.importorskip("bitsandbytes")
SETTINGS = TrainAnchoring(steps=4, batch_size=2, learning_rate=1e-3, checkpoint_every=2, log_every=2, probe_photos=2)
SMALL = FaceEncoderSize(lora_rank=2, reconfigurator_width=64, reconfigurator_heads=4, landmark_features=32)
KINDS = ("adamw", "adamw_8bit")


def optimised(kind: str, accelerator: Any) -> tuple[torch.nn.Module, Optimisation]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(96, 96), torch.nn.ReLU(), torch.nn.Linear(96, 96))
    return module, adamw(module, SETTINGS.model_copy(update={"optimiser": kind}), accelerator("no"))


def tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors(value)


def test_its_state_is_a_quarter_and_its_steps_are_nearly_the_same(accelerator: Callable[[str], Any]) -> None:
    sizes, weights = {}, {}
    for kind in KINDS:
        module, optimisation = optimised(kind, accelerator)
        inputs, wanted = torch.randn((2, 64, 96), generator=torch.Generator().manual_seed(1))
        for _ in range(5):
            optimisation.step((optimisation.ready(inputs) - wanted).square().mean())
        state = optimisation.optimizer.state[module[0].weight]
        # Every tensor has the table of the 256 numbers that a byte stands for; tensors share it.
        sizes[kind] = sum(one.nbytes for one in tensors({k: v for k, v in state.items() if not k.startswith("qmap")}))
        weights[kind] = module[0].weight.detach()
    assert 3.8 < sizes["adamw"] / sizes["adamw_8bit"] < 4.0
    torch.testing.assert_close(weights["adamw_8bit"], weights["adamw"], atol=2e-3, rtol=0.0)


def test_a_resumed_training_has_the_bytes_of_one_that_was_not_interrupted(
    random_models: RandomModels, data: AnchoringData, accelerator: Callable[[str], Any], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"optimiser": "adamw_8bit", "sizes": SMALL})

    def train(name: str, steps: int) -> dict[str, torch.Tensor]:
        base = load_base(random_models.pipeline, random_models.image_encoder)
        run = Run(accelerator("no"), Checkpoints(tmp_path / name, "train_anchoring", "key"))
        return train_anchoring(base, data, data, settings.model_copy(update={"steps": steps}), run)[0].state_dict()

    whole = train("whole", 4)
    train("parts", 2)
    resumed = train("parts", 4)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_without_its_package_the_error_names_the_extra(
    accelerator: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match=r"'adamw_8bit' needs the package bitsandbytes .*the extra eight-bit"):
        optimised("adamw_8bit", accelerator)

"""Small adapters with an untrained IMR, and accelerate's state, for the foundation's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.network.adapter import Adapter
from model.network.base import load_base

MakeAdapter = Callable[..., Adapter]


@pytest.fixture(scope="module", autouse=True)
def accelerate_state() -> Iterator[None]:
    """Let the foundation train on the CPU, whatever the process trained on before."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def make_adapter(make_adapter: MakeAdapter) -> MakeAdapter:
    """Return a maker of adapters on the base in `weights`, saved into `folder`, with an IMR if `complete`."""

    def make(weights: Path, folder: Path, *, complete: bool = True, seed: int = 0) -> Adapter:
        base = load_base(weights / "sd", weights / "image_encoder")
        adapter = make_adapter(base, imr=complete, seed=seed)
        if complete:
            torch.nn.init.zeros_(adapter.reconfigurator.proj_out.weight)
        adapter.save(folder, base.reference("sd", "image_encoder"))
        return adapter

    return make

"""Samples per second in every mode, from a real anchoring on small models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import train_step
from benchmarks.training import MODES, counted_flops
from model.foundation.random_models import save_random_models
from tests.processes import run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_random_models(folder, channels=(8, 16))
    return folder


@pytest.fixture(autouse=True)
def accelerate_state() -> Iterator[None]:
    """Reset the accelerator's state, which belongs to the process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def test_every_mode_is_timed_on_real_steps(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_step.main(["--models", str(models), "--batch", "2", "--rank", "2", "--rounds", "2", "--no-memory"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = {mode.name for mode in MODES}
    for key in ("samples_per_second", "median_seconds", "time_over_cached", "fraction_of_matrix_rate", "seconds"):
        assert set(report[key]) == names, key
    for name in names:
        assert report["samples_per_second"][name] == pytest.approx(2 / report["median_seconds"][name], rel=1e-3)
        fraction = report["flops_per_step"] / report["median_seconds"][name] / report["matrix_rate"]
        assert report["fraction_of_matrix_rate"][name] == pytest.approx(fraction, rel=1e-3)
    assert report["time_over_cached"]["cached"] == 1
    assert report["trained_parameters"] > 0


def test_memory_is_measured_in_a_separate_process(models: Path, project: Path) -> None:
    command = [sys.executable, project / "benchmarks/train_step.py", "--memory-of", "cached, checkpointing"]
    done = run(*command, "--models", models, "--rank", "2", "--threads", "1")
    assert json.loads(done.stdout)["bytes"] > 1e8


def test_attention_counts_as_two_matrix_products_each_way() -> None:
    query, key, value = (torch.randn(1, 2, 32, 16, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 32 * 32 * 16

    def forward() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    with torch.no_grad():
        assert counted_flops(forward) == 2 * product
    # The backward pass recomputes the logits, and computes gradients of both factors of both products.
    assert counted_flops(lambda: forward().sum().backward()) == (2 + 5) * product


def test_half_precision_on_the_cpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        train_step.main(["--dtype", "bfloat16"])
    assert error.value.code == 2
    assert "trains in half precision on a GPU only" in capsys.readouterr().err

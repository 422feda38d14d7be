"""Published files, and what `dynamicid convert` prints and refuses, for its tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from typer.testing import Result

from pipelines.core.errors import UserError

SIZES = {
    "lora_rank": 4,
    "reconfigurator_width": 64,
    "reconfigurator_heads": 4,
    "landmark_features": 32,
    "landmark_width": 2,
}
FILES = ("SAA.bin", "IMR.bin", "key_point_encoder.bin")
Convert = Callable[..., Result]


def write_published(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write published files without the code under test: one weight is NaN, the landmark encoder in half precision."""
    folder.mkdir()

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): x.clone() for key, x in state.items() if key.startswith(prefix)}

    encoder = part("face_encoder.")
    encoder["norm.bias"][0] = float("nan")
    torch.save({"proj_module": encoder, "SAA_module": part("processors.")}, folder / "SAA.bin")
    torch.save(part("reconfigurator."), folder / "IMR.bin")
    half = {key: x.half() if x.is_floating_point() else x for key, x in part("landmark_encoder.").items()}
    torch.save(half, folder / "key_point_encoder.bin")


def published(folder: Path) -> list[str | Path]:
    saa, imr, landmark_encoder = (folder / name for name in FILES)
    return ["from-published", "--saa", saa, "--imr", imr, "--landmark-encoder", landmark_encoder]


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def same_bits(one: Any, other: Any) -> bool:
    """Return whether two nested dicts hold the same keys and bitwise equal tensors of the same dtype (also NaN)."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def load(file: Path) -> Any:
    return torch.load(file, weights_only=True)

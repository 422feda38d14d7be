"""Files of exact vectors of published modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

TOLERANCE = 1e-4
HEADS = 4


class Golden:
    """One file of vectors; `check` compares a computed tensor with one of them, and records the error."""

    def __init__(self, file: Path, errors: dict[str, float]) -> None:
        self.name = file.stem
        self.errors = errors
        with safe_open(file, "pt") as opened:
            self.metadata = opened.metadata() or {}
            self.tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        self.heads = int(self.metadata.get("heads", HEADS))

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def size(self, name: str, axis: int = 0) -> int:
        return self.tensors[name].shape[axis]

    def count(self, start: str) -> int:
        """Return the number of modules in the list `start`."""
        return len({name.removeprefix(start).split(".")[0] for name in self.tensors if name.startswith(start)})

    def load_into(self, module: torch.nn.Module, prefix: str = "weights.") -> None:
        state = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        module.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in state.items()})
        module.eval()

    def check(self, found: torch.Tensor, name: str, case: str = "") -> None:
        error = float((found - self[name]).abs().max())
        self.errors[self.name] = max(error, self.errors.get(self.name, 0.0))
        assert found.dtype == torch.float32
        assert found.shape == self[name].shape
        assert error <= TOLERANCE, f"{self.name}, {name} {case}: largest error {error:.1e} > {TOLERANCE}"


def golden_file(name: str, folder: str = "golden") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrize a test with the file `name` of a folder of vectors."""
    return pytest.mark.parametrize("golden", [(folder, name)], indirect=True, ids=[name])

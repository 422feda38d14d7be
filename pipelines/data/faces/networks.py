"""Run ONNX networks so that the output for a picture does not depend on the other pictures of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.processors import session_options
from pipelines.core.errors import UserError

BATCH = 16


def providers() -> list[str]:
    """Return the names of ONNX Runtime's providers to use: CUDA where it is available, then CPU."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def open_network(file: Path, parameter: str) -> Any:
    """Open an ONNX file; raise UserError naming `parameter` where it is missing or no network."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf

    if not file.is_file():
        raise UserError(f"{parameter} = {file}: no such file; expected an ONNX network")
    try:
        return onnxruntime.InferenceSession(str(file), session_options(), providers=providers())
    except (Fail, InvalidGraph, InvalidProtobuf) as error:
        raise UserError(f"{parameter} = {file}: no ONNX network: {' '.join(str(error).split())}") from None


class Batches:
    """Runs a network on many inputs, in batches only where an output does not depend on the other inputs of its batch.

    A dynamically quantised network has one scale for a whole batch, and matrix kernels may sum in another order for
    another batch size. Rows must not depend on how photos are divided among workers, so all batches have the same size
    (padded with copies). A network that fails a test of independence when it is loaded runs with a batch size of one.
    """

    def __init__(self, session: Any, output: str | None = None) -> None:
        self._session = session
        self._entry = session.get_inputs()[0]
        self._output = output or session.get_outputs()[0].name
        self.size = BATCH if self._is_independent() else 1

    def run(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Run (C, H, W) float32 inputs; return the output chosen at construction, one row per input, in order."""
        rows = []
        for start in range(0, len(inputs), self.size):
            part = list(inputs[start : start + self.size])
            full = part + [part[-1]] * (self.size - len(part))
            rows.append(self._batch(np.stack(full))[: len(part)])
        return np.concatenate(rows)

    def _batch(self, stacked: np.ndarray) -> np.ndarray:
        (answer,) = self._session.run([self._output], {self._entry.name: np.ascontiguousarray(stacked)})
        return np.asarray(answer).reshape(len(stacked), -1)

    def _is_independent(self) -> bool:
        batch, *shape = self._entry.shape
        if isinstance(batch, int) or any(not isinstance(length, int) for length in shape):
            return False
        noise = np.random.default_rng(0).uniform(-1, 1, (2 * BATCH, *shape)).astype(np.float32)
        first, second = noise[:BATCH], noise[BATCH:] * 3
        second[-1] = first[0]
        alone = self._batch(first)
        if not (self._batch(second)[-1] == alone[0]).all():
            return False
        return bool((self._batch(first[::-1])[::-1] == alone).all())

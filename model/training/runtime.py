"""Where a training runs: devices and processes through accelerate, threads, determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

import torch

from model.network.base import Base


class Batch:
    """A dataclass of tensors, made on the host."""

    def to(self, device: torch.device) -> Self:
        """Return the same on `device`."""
        return type(self)(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def make_accelerator(mixed_precision: str, base_dtype: str, *, patience: float = 7200) -> Any:
    """Return the Accelerator of a stage; several processes when started with `accelerate launch`.

    `patience` is how many seconds processes wait for each other. Raises ValueError for a precision that would
    silently become another one, or would not train.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    if mixed_precision != "no" and not torch.cuda.is_available():
        raise ValueError(f"mixed_precision {mixed_precision!r} needs a GPU and there is none: set it to 'no'")
    if base_dtype != "float32" and mixed_precision == "no":
        raise ValueError(f"base.dtype {base_dtype!r} with mixed_precision 'no': set it to 'bf16' or 'fp16'")
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=patience))],
    )
    if accelerator.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // accelerator.num_processes))
    return accelerator


def leave_the_unet(base: Base, *, gradient_checkpointing: bool) -> None:
    """Keep of the base models only the UNet where training runs, and set how its activations are kept.

    What looks at photos and texts has filled the caches: at full size it takes 1.8 GB of a card in half precision.
    """
    for name in ("vae", "text_encoder", "text_encoder_2", "image_encoder"):
        network = getattr(base, name, None)
        if network is not None:
            network.to("cpu")
    if gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    else:
        base.unet.disable_gradient_checkpointing()


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask for deterministic algorithms; on a GPU an operation that has none warns instead of failing."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

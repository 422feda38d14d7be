"""Devices and processes of a training (by accelerate), threads, determinism."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

import torch

from model.network.base import Base
from model.processors import use_threads


class Batch:
    """The base of dataclasses of tensors, which are made on the host."""

    def to(self, device: torch.device) -> Self:
        """Return a copy on `device`."""
        return type(self)(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def make_accelerator(mixed_precision: str, base_dtype: str, *, patience: float = 7200) -> Any:
    """Return the Accelerator of a stage, which has as many processes as a launcher such as torchrun started.

    `patience`: seconds that processes wait for each other. Raise ValueError for 'fp16' without a GPU, which accelerate
    would silently replace, for half-precision base models with 'no', which would not train, and where the processes
    would not work together.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("mixed_precision 'fp16' needs a GPU and there is none: set it to 'bf16' or 'no'")
    if base_dtype != "float32" and mixed_precision == "no":
        raise ValueError(f"base.dtype {base_dtype!r} with mixed_precision 'no': set it to 'bf16' or 'fp16'")
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=patience))],
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ValueError(
            f"{started} processes were started, but {accelerator.num_processes} would train: without GPUs, they need "
            "the environment variable ACCELERATE_USE_CPU=true"
        )
    if accelerator.is_main_process and started > 1:
        print(f"{started} processes on {accelerator.device.type} divide the work", file=sys.stderr)
    use_threads()
    return accelerator


def offload_all_but_unet(base: Base, *, gradient_checkpointing: bool) -> None:
    """Move all base models except the UNet to the CPU, and switch the UNet's gradient checkpointing on or off.

    The caches hold the outputs of the other models, which would take 1.8 GB of GPU memory (half precision, full size).
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
    """Use deterministic algorithms inside the block; on a GPU, operations that have none only cause a warning."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

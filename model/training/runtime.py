"""Devices and processes of a training (by accelerate), threads, determinism."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Container, Iterator
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
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("mixed_precision 'fp16' needs a GPU and there is none: set it to 'bf16' or 'no'")
    if base_dtype != "float32" and mixed_precision == "no":
        raise ValueError(f"base.dtype {base_dtype!r} with mixed_precision 'no': set it to 'bf16' or 'fp16'")
    # Otherwise torch orders the gradients anew after the first step, also after that of a resumed training: of more
    # than two processes the sums then have other last bits.
    same_order = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=patience)), same_order],
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


def offload_all_but_denoiser(base: Base, *, gradient_checkpointing: bool, needed: Container[str] = ()) -> None:
    """Move all base models except the denoiser to the CPU, and switch its gradient checkpointing on or off.

    Those that are `needed` stay: their outputs are not all in the caches. All take 1.8 GB of GPU memory (half
    precision, full size).
    """
    for name in ("vae", "text_encoder", "text_encoder_2", "image_encoder"):
        network = getattr(base, name, None)
        if network is not None and name not in needed:
            network.to("cpu")
    if gradient_checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    else:
        base.denoiser.disable_gradient_checkpointing()


_NO_ALGORITHM = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic(device: torch.device) -> Iterator[set[str]]:
    """Compute so that the same inputs give the same bytes, inside the block.

    Yield the names of operations that have no such algorithm, as they are met: on a GPU they are computed nevertheless,
    on a CPU torch raises an error.
    """
    met: set[str] = set()

    def note(message: Warning | str, *rest: Any, **named: Any) -> None:
        if (found := _NO_ALGORITHM.search(str(message))) is not None:
            met.add(found[1])
        shown(message, *rest, **named)

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings(), _restored():
        warnings.filterwarnings("once", message=f".*{_NO_ALGORITHM.pattern}")
        shown, warnings.showwarning = warnings.showwarning, note
        torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
        torch.backends.cudnn.benchmark = False
        yield met


@contextmanager
def fast() -> Iterator[None]:
    """Let torch choose the fastest algorithms, also in TF32, inside the block: results differ in their last bits."""
    with _restored():
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        yield


@contextmanager
def exact() -> Iterator[None]:
    """Compute inside the block, within a block of `fast`, what other trainings will read: as if that were not there."""
    if not torch.backends.cudnn.benchmark:
        yield
        return
    with _restored():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = False
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Set torch's switches after the block as they were before."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    exact = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before

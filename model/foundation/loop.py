"""Train a part of the foundation: the loop of the training stages with another schedule and average."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.training.loop import Run, run_loop
from model.training.optimisation import Optimisation
from model.training.resume import Checkpoints

Losses = Callable[[int, np.random.Generator], Mapping[str, Tensor]]


@functools.cache
def bfloat16_is_faster() -> bool:
    """Return whether training in bfloat16 is faster than in float32 on this CPU.

    Steps of the UNet of photographs: 1.4 times as fast on an AMD EPYC with AVX-512 BF16, 0.6 times on an Intel Xeon
    that has these instructions without AMX, a tenth where they are emulated.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and "AuthenticAMD" in _processors()


def _processors() -> str:
    """Return what Linux says of the processors, nothing on other systems."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def training_device() -> torch.device:
    """Return the device on which the generative networks are trained: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to 2 % of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(steps - warmup, 1)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class StateAverage(EMAModel):
    """Exponential moving average of the whole state: batch statistics, too, since they must fit averaged weights."""

    @torch.no_grad()
    def step(self, parameters: Iterable[Tensor]) -> None:
        """Update the average, faster in early steps."""
        decay = min(self.decay, (1 + self.optimization_step) / (10 + self.optimization_step))
        self.optimization_step += 1
        for average, value in zip(self.shadow_params, parameters, strict=True):
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)


@dataclass(frozen=True)
class _LoopSettings:
    steps: int
    checkpoint_every: int
    log_every: int = 50
    samples_every: int = 0
    keep: str = "last"
    determinism: str = "bitwise"


def fit(
    module: nn.Module,
    losses: Losses,
    folder: Path,
    *,
    name: str,
    steps: int,
    rate: float,
    seed: int,
    ema: float = 0.995,
    every: int = 250,
    bf16: bool = False,
) -> None:
    """Train `module` for `steps` steps; afterwards it has the averaged state.

    `losses(number, rng)` returns scalars by name, of which `loss` is minimised and the others are only shown. `rng` and
    torch's generator depend on `seed` and the step number alone, so that a resumed training gives the same result.
    `bf16` uses autocast where bfloat16 is faster, on every GPU. Checkpoints are written into
    `folder`/state every `every` steps. `module` is trained on the device that it is on. Raises FloatingPointError where
    the loss is NaN or infinite.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    module.train()
    kind = next(module.parameters()).device.type
    if torch.cuda.is_available():
        # Accelerators of a process share their device: the face networks use the CPU, the others the GPU.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=kind == "cpu", mixed_precision="no")
    state = list(module.state_dict().values())
    optimisation = Optimisation(
        module,
        accelerator,
        # A rate of 1, because `learning_rate` returns the rate itself, not a factor.
        optimizer=torch.optim.AdamW(module.parameters(), lr=1.0, weight_decay=1e-2, betas=(0.9, 0.99)),
        rate=lambda number: learning_rate(number, steps, rate),
        average=StateAverage(state, decay=ema),
        averaged=state,
        max_grad_norm=1.0,
    )

    def seeded(_: nn.Module, number: int) -> Mapping[str, Tensor]:
        torch.manual_seed(seed * 1_000_003 + number)
        with torch.autocast(kind, torch.bfloat16, enabled=bf16 and (kind != "cpu" or bfloat16_is_faster())):
            return losses(number, np.random.default_rng([seed, number]))

    run_loop(
        optimisation,
        make_batch=lambda number: number,
        losses=seeded,
        probe=None,
        settings=_LoopSettings(steps, every),
        run=Run(accelerator, Checkpoints(folder.parent, folder.name, "state")),
        label=name,
    )


@dataclass(frozen=True)
class Legs:
    """The legs of a training, each a warm restart (Loshchilov & Hutter 2017) from the weights of the one before.

    The result of leg n, of `steps`[n] steps, is kept in `folder`/leg<n>.safetensors and not trained again. The first
    `done` legs are those whose result the module already has, from files of another machine. `finished(n)` is called
    when n legs are trained. The optimiser's state ends with its leg: each leg warms up anew.
    """

    folder: Path
    steps: tuple[int, ...]
    done: int = 0
    finished: Callable[[int], None] = lambda count: None

    @property
    def pictures(self) -> Path:
        """The folder of copies of the training pictures, which parts share."""
        return self.folder.parent / "pictures"

    @property
    def kept(self) -> tuple[int, ...]:
        """The legs whose result is kept."""
        return tuple(leg for leg in range(len(self.steps)) if self._file(leg).is_file())

    def run(self, module: nn.Module, train: Callable[[int, Path], None]) -> None:
        """Call `train(leg, folder)` for each leg after the last kept one, which trains `module`; skip legs of 0 steps.

        Afterwards `module` has the result of the last leg.
        """
        if self.done and not self.kept:
            self._keep(self.done - 1, module)
        last = max(self.kept, default=-1)
        if last >= 0:
            module.load_state_dict(load_file(self._file(last)))
        for leg, count in enumerate(self.steps):
            if count and leg > last:
                train(leg, self.folder / f"leg{leg}")
                self._keep(leg, module)
                self.finished(leg + 1)

    def _file(self, leg: int) -> Path:
        return self.folder / f"leg{leg}.safetensors"

    def _keep(self, leg: int, module: nn.Module) -> None:
        part = self._file(leg).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, part)
        part.replace(self._file(leg))

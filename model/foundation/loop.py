"""The training loop that every part of the foundation shares: AdamW, EMA, checkpoints, a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Step = Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]]


def has_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 instructions; without them autocast emulates it, ten times slower."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Return the rate of a step: linear warm-up, then a cosine down to 2 % of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(steps - warmup, 1)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class Averaged:
    """Exponential moving average of a module's state, buffers included."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's present state; early steps move faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def fit(
    module: nn.Module,
    step: Step,
    folder: Path,
    *,
    name: str,
    steps: int,
    rate: float,
    seed: int,
    ema: float = 0.995,
    weight_decay: float = 1e-2,
    every: int = 250,
    bf16: bool = False,
) -> dict[str, Tensor]:
    """Train `module` for `steps` steps and return its averaged state.

    `step(number, rng)` returns the loss and figures to show; its randomness comes from `rng`, a pure function of
    `seed` and the number, and from torch's generator, seeded likewise, so that a resumed training goes the same way.
    `bf16` runs the step under autocast where the CPU has bfloat16 instructions, 1.4 times faster.
    State is kept in `folder`/state.pt every `every` steps.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    average = Averaged(module, ema)
    state = folder / "state.pt"
    start = 0
    if state.is_file():
        kept: dict[str, Any] = torch.load(state, weights_only=True)
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        average.state = kept["average"]
        start = kept["step"]
    module.train()
    bf16 = bf16 and has_bfloat16()
    shown: dict[str, float] = {}
    with tqdm(total=steps, initial=start, desc=name, unit="step", mininterval=5) as bar:
        for number in range(start, steps):
            torch.manual_seed(seed * 1_000_003 + number)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(number, steps, rate)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss, figures = step(number, np.random.default_rng([seed, number]))
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(module, number)
            for key, value in {"loss": float(loss.detach()), **figures}.items():
                shown[key] = 0.98 * shown.get(key, value) + 0.02 * value
            bar.set_postfix({key: f"{value:.4f}" for key, value in shown.items()}, refresh=False)
            bar.update()
            if (number + 1) % every == 0 or number + 1 == steps:
                temporary = state.with_suffix(".part")
                torch.save(
                    {
                        "module": module.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average.state,
                        "step": number + 1,
                    },
                    temporary,
                )
                temporary.replace(state)
    return average.state

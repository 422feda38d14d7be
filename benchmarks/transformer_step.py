"""Time one denoising step of a Flux transformer of true width, plain and with people in it.

    python benchmarks/transformer_step.py                          # 512 px, one double and two single blocks, float32
    python benchmarks/transformer_step.py --resolution 1024 --text 512 --rounds 15
    python benchmarks/transformer_step.py --device cuda --dtype bfloat16 --blocks 19 38 --resolution 1024

Weights are random, so only time is meaningful. Both take turns in one process. The last line is JSON. See
docs/guides/measure.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contestants import twin
from benchmarks.full_size_models import TOKENS
from benchmarks.measure import (
    interleaved_times,
    machine,
    median_ratio,
    parse_step_options,
    print_report,
    quiet,
    rounded,
    step_parser,
)
from model.network.denoisers import attention_layers, identity_width
from model.network.folding import FoldedLoRA
from model.network.identity_state import IdentityState
from model.network.joint_attention import joint_processor_for
from model.network.transformer_base import pack_latents, patch_places

_RESAMPLES = 2000


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = step_parser(__doc__, ["float32", "float16", "bfloat16"], ())
    parser.add_argument("--resolution", type=int, default=512, metavar="PX", help="a multiple of 16")
    parser.add_argument("--batch", type=int, default=1, help="pictures per step")
    parser.add_argument("--text", type=int, default=256, help="tokens of the text")
    parser.add_argument("--blocks", type=int, nargs=2, default=(1, 2), help="blocks of two streams, and of one")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each")
    options = parse_step_options(parser, argv)
    if options.resolution < 16 or options.resolution % 16:
        parser.error(f"--resolution {options.resolution}: expected a multiple of 16")
    return options


def random_transformer(blocks: tuple[int, int], dtype: torch.dtype, device: str) -> Any:
    """Return a frozen transformer of the width of FLUX.1 with small random weights."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=blocks[0], num_single_layers=blocks[1])
    model = model.to_empty(device=device).to(dtype).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            weight.uniform_(-1, 1).mul_(weight.shape[1] ** -0.5)
    return model


def steps_of(model: Any, options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """Return one step of the plain transformer, and one with the adapter, folded and cached as in the pipeline."""
    device, dtype, side = torch.device(options.device), getattr(torch, options.dtype), options.resolution // 8
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).to(device, dtype)

    places = patch_places(side, side).to(device, dtype), torch.zeros(options.text, 3, device=device, dtype=dtype)
    latents = pack_latents(normal(options.batch, 16, side, side))
    text, pooled = normal(options.batch, options.text, 4096), normal(options.batch, 768)
    time = torch.full((options.batch,), 0.6, device=device, dtype=dtype)

    def call(transformer: Any, kwargs: Any = None) -> Tensor:
        return transformer(latents, text, pooled, time, *places, joint_attention_kwargs=kwargs, return_dict=False)[0]

    own, width = twin(model, own_attention=True), identity_width(model)
    layers = attention_layers(own)
    processors = nn.ModuleList(
        joint_processor_for(layer, width, options.rank, TOKENS, 0.3) for layer in layers.values()
    )
    for name, weight in processors.named_parameters():
        if ".up." in name or "to_v_ip" in name:
            nn.init.normal_(weight, std=0.02)
    own.set_attn_processor(dict(zip(own.attn_processors, processors.to(device, dtype).eval(), strict=True)))
    folded = FoldedLoRA(layers.values(), processors)
    state = IdentityState(normal(options.batch, TOKENS, width), height=side, width=side, cache={})

    def ours() -> Tensor:
        # Keep `folded` alive, as the adapter does.
        assert folded.scale == 1
        return call(own, {"identity": state})

    return {"plain": lambda: call(model), "ours": ours}


def interval(over: list[float], under: list[float]) -> list[float]:
    """Return the 95 % bootstrap interval, over rounds, of the median of `over` / `under`."""
    each = np.array(over) / np.array(under)
    drawn = np.random.default_rng(0).choice(each, (_RESAMPLES, len(each)))
    return [float(edge) for edge in np.quantile(np.median(drawn, axis=1), (0.025, 0.975))]


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = random_transformer(tuple(options.blocks), getattr(torch, options.dtype), options.device)
    steps = steps_of(model, options)
    # The first calls compute what the steps of a picture share.
    for step in steps.values():
        step()
    times = interleaved_times(steps, options.rounds, torch.device(options.device))
    figures = {
        "ours_over_plain": median_ratio(times.wall["ours"], times.wall["plain"]),
        "interval": interval(times.wall["ours"], times.wall["plain"]),
        "cpu_ours_over_plain": median_ratio(times.cpu["ours"], times.cpu["plain"]),
        "cpu_interval": interval(times.cpu["ours"], times.cpu["plain"]),
        "median_seconds": {name: statistics.median(values) for name, values in times.wall.items()},
        "seconds": times.wall,
    }
    asked = {name: getattr(options, name) for name in ("resolution", "text", "blocks", "batch", "rank", "dtype")}
    print_report({**rounded(figures), **asked, **machine(torch.device(options.device))}, options.out)


if __name__ == "__main__":
    main()

"""Time one denoising step at Stable Diffusion 1.5's size: ours, the plain UNet, IP-Adapter and a literal version.

    python benchmarks/denoising_step.py                                      # 512 px, float32, this machine's CPU
    python benchmarks/denoising_step.py --resolutions 512 768 --rounds 5
    python benchmarks/denoising_step.py --device cuda --dtype bfloat16 --resolutions 512 1024 --rounds 30

Weights are random, so only time and memory are meaningful. The contestants take turns in one process; the peak memory
of each is measured in a separate process. The last line is JSON. See docs/guides/measure.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.contestants import NAMES, Contestant, Workload, build_adapter, contestant, twin
from benchmarks.full_size_models import random_unet
from benchmarks.measure import (
    PeakMemory,
    Times,
    interleaved_times,
    machine,
    median_ratio,
    parse_step_options,
    peak_of_each,
    print_report,
    quiet,
    rounded,
    step_parser,
)

# Largest permitted difference of ours from the literal version, relative to the largest value; else no times.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = step_parser(__doc__, [str(dtype).removeprefix("torch.") for dtype in _TOLERANCE], NAMES)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[512], metavar="PX", help="multiples of 64")
    parser.add_argument("--batch", type=int, default=2, help="pictures per step; 2 is one picture with guidance")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each contestant")
    parser.add_argument("--unet", type=Path, help="config.json of another UNet (default: of Stable Diffusion 1.5)")
    options = parse_step_options(parser, argv)
    for resolution in options.resolutions:
        if resolution < 64 or resolution % 64:
            parser.error(f"--resolutions {resolution}: expected multiples of 64")
    return options


class Bench:
    """The UNet and the adapter's processors that all contestants use."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.dtype = getattr(torch, options.dtype)
        self.batch = options.batch
        config = None if options.unet is None else json.loads(options.unet.read_text(encoding="utf-8"))
        self.unet = random_unet(config).to(self.device, self.dtype)
        self.processors = build_adapter(self.unet, rank=options.rank)

    def workload(self, resolution: int) -> Workload:
        width, channels = self.unet.config.cross_attention_dim, self.unet.config.in_channels
        return Workload.make(resolution, self.batch, width, self.device, self.dtype, channels=channels)

    def contestants(self, resolution: int) -> dict[str, Contestant]:
        work = self.workload(resolution)
        return {
            name: contestant(name, twin(self.unet, own_attention=name == "ours"), self.processors, work)
            for name in NAMES
        }

    def times(self, resolution: int, rounds: int) -> Times:
        """Return seconds per step; raise SystemExit where ours and the literal version differ too much."""
        ready = self.contestants(resolution)
        answers = {name: item.step().float() for name, item in ready.items()}
        error = float((answers["ours"] - answers["literal"]).abs().max() / answers["literal"].abs().max())
        print(f"{resolution} px: ours and literal differ by {error:.1e} of the largest value", file=sys.stderr)
        if not error <= _TOLERANCE[self.dtype]:
            raise SystemExit(f"ours is not the method: relative difference {error:.1e} > {_TOLERANCE[self.dtype]:.0e}")
        return interleaved_times({name: item.step for name, item in ready.items()}, rounds, self.device)

    def peak(self, name: str, resolution: int) -> dict[str, int]:
        """Return the peak memory of one contestant's first two steps, including what it computes once."""
        item = contestant(name, self.unet, self.processors, self.workload(resolution))
        if name in ("plain", "ip_adapter"):
            self.processors = None
        memory = PeakMemory(self.device)
        memory.reset()
        for _ in range(2):
            item.step()
        return {"bytes": memory.bytes(), "added": item.added_bytes}


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {
        "ours_over_plain": median_ratio(seconds["ours"], seconds["plain"]),
        "ours_over_ip_adapter": median_ratio(seconds["ours"], seconds["ip_adapter"]),
        "literal_over_ours": median_ratio(seconds["literal"], seconds["ours"]),
    }


def summary(times: Times, memory: dict[str, dict[str, int]] | None) -> dict[str, Any]:
    """Return the ratios of one resolution and the raw figures behind them."""
    figures: dict[str, Any] = ratios(times.wall)
    if memory is not None:
        bare = memory["ours"]["bytes"] - memory["ours"]["added"]
        figures["memory_ours_over_plain"] = bare / memory["plain"]["bytes"]
        figures["memory_literal_over_ours"] = memory["literal"]["bytes"] / memory["ours"]["bytes"]
    figures["median_seconds"] = {name: statistics.median(values) for name, values in times.wall.items()}
    figures["cpu"] = {**ratios(times.cpu), "seconds": times.cpu}
    figures["seconds"] = times.wall
    if memory is not None:
        figures["peak_bytes"] = {name: item["bytes"] for name, item in memory.items()}
        figures["adapter_bytes"] = {name: item["added"] for name, item in memory.items()}
    return rounded(figures)


def print_table(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("px", "contestant", "s a step", "× plain", "CPU s, × plain", "peak GB", "adapter GB", "× plain, bare")
    for resolution, result in results.items():
        for name in NAMES:
            seconds = result["median_seconds"]
            row = [resolution, name, f"{seconds[name]:.3f}"]
            row.append(f"{median_ratio(result['seconds'][name], result['seconds']['plain']):.3f}")
            row.append(f"{median_ratio(result['cpu']['seconds'][name], result['cpu']['seconds']['plain']):.3f}")
            if "peak_bytes" in result:
                peak, added = result["peak_bytes"], result["adapter_bytes"]
                row += [f"{peak[name] / 1e9:.2f}", f"{added[name] / 1e9:.2f}"]
                row.append(f"{(peak[name] - added[name]) / peak['plain']:.3f}")
            table.add_row(*row)
        table.add_section()
    Console(width=110).print(table)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    if options.memory_of:
        print(json.dumps(bench.peak(options.memory_of, options.resolutions[0])))
        return
    times = {resolution: bench.times(resolution, options.rounds) for resolution in options.resolutions}
    where = machine(bench.device)
    # Free memory for the processes that measure it.
    del bench
    gc.collect()
    unet = [] if options.unet is None else ["--unet", str(options.unet)]
    results = {}
    for resolution in options.resolutions:
        more = ["--resolutions", str(resolution), *unet]
        memory = None if options.no_memory else peak_of_each(__file__, NAMES, options, *more)
        results[str(resolution)] = summary(times[resolution], memory)
    print_table(results)
    first = results[str(options.resolutions[0])]
    report = {**first, "resolution": options.resolutions[0], "dtype": options.dtype, "batch": options.batch, **where}
    print_report({**report, "resolutions": results}, options.out)


if __name__ == "__main__":
    main()

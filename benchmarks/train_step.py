"""Time one step of the anchoring stage at Stable Diffusion 1.5's size, with and without caches; measure its memory.

    python benchmarks/train_step.py                                              # batch 1, float32, this machine's CPU
    python benchmarks/train_step.py --device cuda --dtype bfloat16 --batch 8 --rounds 20
    python benchmarks/train_step.py --models DIR                                 # keep the 3.4 GB of random weights

Weights and photos are random. The modes take turns in one process, on one adapter; the peak memory of each is measured
in a separate process. The last line is JSON. See docs/guides/measure.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.full_size_models import save_full_size
from benchmarks.matrix_rate import matrix_rate
from benchmarks.measure import (
    PeakMemory,
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
from benchmarks.training import MODES, Mode, Trainer, counted_flops, random_photos

_PRECISION = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = step_parser(__doc__, _PRECISION, [mode.name for mode in MODES])
    parser.add_argument("--batch", type=int, default=1, help="photos per step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each mode")
    parser.add_argument("--models", type=Path, help="folder of full-size models, created if it does not exist")
    options = parse_step_options(parser, argv)
    if options.device == "cpu" and options.dtype != "float32":
        parser.error(f"--dtype {options.dtype}: the anchoring stage trains in half precision on a GPU only")
    return options


def trainer(options: argparse.Namespace, folder: Path, state: Path) -> Trainer:
    """Load the models as the stage does, and create an adapter for them."""
    from accelerate import Accelerator

    from model.network.base import load_base

    accelerator = Accelerator(mixed_precision=_PRECISION[options.dtype], cpu=options.device == "cpu")
    base = load_base(folder / "sd", folder / "image_encoder", dtype=options.dtype, device=accelerator.device)
    photos = random_photos(4 * options.batch, base.resolution)
    return Trainer(base, photos, state, accelerator, batch=options.batch, rank=options.rank)


def peak(training: Trainer, mode: Mode) -> int:
    """Return the peak bytes of two steps in `mode`, with all weights and the optimiser's state."""
    training.release_unused(mode)
    memory = PeakMemory(training.accelerator.device)
    memory.reset()
    for _ in range(2):
        training.step(mode)
    return memory.bytes()


def measured(options: argparse.Namespace, folder: Path, state: Path) -> dict[str, Any]:
    """Return times, rates, operations and the machine: everything but memory."""
    training = trainer(options, folder, state)
    device = training.accelerator.device
    # Measured without checkpointing, to count only the operations that the method needs.
    flops = counted_flops(lambda: training.step(MODES[0]))
    for mode in MODES:
        training.step(mode)
    steps = {mode.name: (lambda mode=mode: training.step(mode)) for mode in MODES}
    times = interleaved_times(steps, options.rounds, device).wall
    rate = matrix_rate(device, getattr(torch, options.dtype))
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = MODES[0].name
    return {
        "samples_per_second": {name: options.batch / seconds for name, seconds in medians.items()},
        "median_seconds": medians,
        "time_over_cached": {name: median_ratio(values, times[first]) for name, values in times.items()},
        "matrix_rate": rate,
        "fraction_of_matrix_rate": {name: flops / seconds / rate for name, seconds in medians.items()},
        "flops_per_step": flops,
        "trained_parameters": training.trained,
        "seconds": times,
        "batch": options.batch,
        "dtype": options.dtype,
        "resolution": training.base.resolution,
        **machine(device),
    }


def print_table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("mode", "s a step", "samples/s", "× cached", "of the matrix rate", "peak GB", "memory × cached")
    first = MODES[0].name
    for mode in MODES:
        row = [mode.name, f"{report['median_seconds'][mode.name]:.3f}"]
        row += [f"{report['samples_per_second'][mode.name]:.3f}", f"{report['time_over_cached'][mode.name]:.3f}"]
        row.append(f"{report['fraction_of_matrix_rate'][mode.name]:.2f}")
        if "peak_bytes" in report:
            bytes_ = report["peak_bytes"]
            row += [f"{bytes_[mode.name] / 1e9:.2f}", f"{bytes_[mode.name] / bytes_[first]:.3f}"]
        table.add_row(*row)
    Console(width=110).print(table)


def run(options: argparse.Namespace, folder: Path, state: Path) -> None:
    if options.memory_of:
        training = trainer(options, folder, state)
        print(json.dumps({"bytes": peak(training, next(mode for mode in MODES if mode.name == options.memory_of))}))
        return
    report = measured(options, folder, state)
    gc.collect()
    if not options.no_memory:
        peaks = peak_of_each(__file__, [mode.name for mode in MODES], options, "--models", str(folder))
        report["peak_bytes"] = {name: peak["bytes"] for name, peak in peaks.items()}
    report = rounded(report)
    print_table(report)
    print_report(report, options.out)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary) / "models"
        if not (folder / "sd").is_dir():
            print(f"{folder}: making models of full size with random weights, 3.4 GB", file=sys.stderr)
            save_full_size(folder)
        run(options, folder, Path(temporary) / "state")


if __name__ == "__main__":
    main()

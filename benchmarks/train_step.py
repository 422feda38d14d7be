"""One step of the anchoring stage at Stable Diffusion 1.5's size: samples a second and memory, with and without caches.

    python benchmarks/train_step.py                                              # batch 1, float32, this machine's CPU
    python benchmarks/train_step.py --device cuda --dtype bfloat16 --batch 8 --rounds 20
    python benchmarks/train_step.py --models DIR                                 # keep the 3.4 GB of random weights

Weights and photos are random. The modes take turns in one process, on one adapter; the peak memory of each is measured
in a process of its own. The last line is JSON. See docs/guides/measure.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.full_size import save_full_size
from benchmarks.matrix_rate import matrix_rate
from benchmarks.measure import PeakMemory, interleaved_times, machine, median_ratio, quiet, rounded
from benchmarks.training import MODES, Mode, Trainer, counted_flops, random_photos
from model.foundation.random_models import RandomModels

_PRECISION = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1, help="photos a step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each mode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=list(_PRECISION), default="float32", help="of the frozen networks")
    parser.add_argument("--threads", type=int, help="threads on the CPU (all cores)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure memory")
    parser.add_argument("--models", type=Path, help="folder of full-size models, made where it is not there yet")
    parser.add_argument("--rank", type=int, default=128, help="rank of the LoRA")
    parser.add_argument("--out", type=Path, help="also write the JSON, readable, to this file")
    parser.add_argument("--memory-of", choices=[mode.name for mode in MODES], help=argparse.SUPPRESS)
    found = parser.parse_args(argv)
    if found.rounds < 1 or found.batch < 1 or found.rank < 1:
        parser.error("--rounds, --batch and --rank: expected at least 1")
    if found.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {found.device}: there is no CUDA device; leave it out to measure the CPU")
    if found.device == "cpu" and found.dtype != "float32":
        parser.error(f"--dtype {found.dtype}: the anchoring stage trains in half precision on a GPU only")
    return found


def trainer(options: argparse.Namespace, folder: Path, state: Path) -> Trainer:
    """Load the models as the stage does and make an adapter for them."""
    from accelerate import Accelerator

    from model.network.base import load_base

    accelerator = Accelerator(mixed_precision=_PRECISION[options.dtype], cpu=options.device == "cpu")
    base = load_base(folder / "sd", folder / "image_encoder", dtype=options.dtype, device=accelerator.device)
    photos = random_photos(4 * options.batch, base.resolution)
    return Trainer(base, photos, state, accelerator, batch=options.batch, rank=options.rank)


def peak(training: Trainer, mode: Mode) -> int:
    """Return the bytes at the peak of two steps in `mode`, all weights and the optimiser's state included."""
    training.alone(mode)
    memory = PeakMemory(training.accelerator.device)
    memory.reset()
    for _ in range(2):
        training.step(mode)
    return memory.bytes()


def peaks(options: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Return the peak memory of every mode, each in a process of its own."""
    found = {}
    for mode in MODES:
        command = [sys.executable, __file__, "--memory-of", mode.name, "--models", str(folder)]
        command += ["--batch", str(options.batch), "--device", options.device, "--dtype", options.dtype]
        command += ["--rank", str(options.rank)]
        command += [] if options.threads is None else ["--threads", str(options.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"measuring the memory of {mode.name!r} ended with {done.returncode}")
        found[mode.name] = json.loads(done.stdout)["bytes"]
    return found


def measured(options: argparse.Namespace, folder: Path, state: Path) -> dict[str, Any]:
    """Return everything but memory: times, rates, operations, and the machine."""
    training = trainer(options, folder, state)
    device = training.accelerator.device
    # The operations the method needs: what checkpointing computes a second time is not progress.
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
        report["peak_bytes"] = peaks(options, folder)
    report = rounded(report)
    print_table(report)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary) / "models"
        if not (folder / "sd").is_dir():
            print(f"{folder}: making models of full size with random weights, 3.4 GB", file=sys.stderr)
            models: RandomModels = save_full_size(folder)
            print(f"{models.pipeline}, {models.image_encoder}: written", file=sys.stderr)
        run(options, folder, Path(temporary) / "state")


if __name__ == "__main__":
    main()

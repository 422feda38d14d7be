"""Interleaved times, peak memory, and other code that the scripts which measure one step share."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Times:
    """Seconds of every call, by name: `wall`, and `cpu`, the processor time of all threads of this process.

    `cpu` does not include work on a GPU. With one thread it is the time that an idle machine would take; with several,
    it includes the busy waiting of threads for each other.
    """

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]


def interleaved_times(steps: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> Times:
    """Return the seconds of every call: in each of `rounds` rounds, every step is called once.

    The step that comes first in a round comes last in the next. Other processes slow all steps alike and hardly change
    the ratios within a round (see `median_ratio`).
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds: expected at least 1")
    names = list(steps)
    times = Times({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            synchronise(device)
            start, worked = time.perf_counter(), time.process_time()
            steps[name]()
            synchronise(device)
            times.wall[name].append(time.perf_counter() - start)
            times.cpu[name].append(time.process_time() - worked)
    return times


def median_ratio(over: list[float], under: list[float]) -> float:
    """Return the median over rounds of `over` / `under`."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def rounded(values: Any) -> Any:
    """Return JSON values with floats rounded to five significant digits."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values


def quiet() -> None:
    """Turn off diffusers' messages about random models."""
    import diffusers

    diffusers.logging.set_verbosity_error()


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """The peak memory of this process, or of a CUDA device, since `reset`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Begin a new measurement."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            # 5 resets the high-water mark of the resident set (proc(5)).
            _CLEAR.write_text("5")

    def bytes(self) -> int:
        """Return the peak in bytes since `reset` or, where that is impossible, since the start of the process."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if _STATUS.exists():
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


def machine(device: torch.device) -> dict[str, Any]:
    """Return the versions of torch and diffusers, the device's name and, for a CPU, the number of threads."""
    import diffusers

    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    if device.type == "cuda":
        return {**versions, "device": torch.cuda.get_device_name(device)}
    return {**versions, "device": _processor(), "threads": torch.get_num_threads()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def step_parser(description: str | None, dtypes: Iterable[str], names: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that the scripts share; `names` are what `--memory-of` may measure."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=list(dtypes), default="float32", help="precision of the frozen networks")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: all cores)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure memory")
    parser.add_argument("--rank", type=int, default=128, help="rank of the LoRA")
    parser.add_argument("--out", type=Path, help="also write the JSON, indented, to this file")
    parser.add_argument("--memory-of", choices=list(names), help=argparse.SUPPRESS)
    return parser


def parse_step_options(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed options; exit with code 2 where one is out of range or the CUDA device is missing."""
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.batch < 1 or options.rank < 1:
        parser.error("--rounds, --batch and --rank: expected at least 1")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no CUDA device; leave the option out to measure the CPU")
    return options


def peak_of_each(script: str, names: Iterable[str], options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Run `script --memory-of NAME` for each name in its own process; return what each prints as JSON."""
    command = [sys.executable, script, "--batch", str(options.batch), "--rank", str(options.rank), *more]
    command += ["--device", options.device, "--dtype", options.dtype]
    command += [] if options.threads is None else ["--threads", str(options.threads)]
    peaks = {}
    for name in names:
        done = subprocess.run([*command, "--memory-of", name], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"measuring the memory of {name!r} ended with {done.returncode}")
        peaks[name] = json.loads(done.stdout)
    return peaks


def print_report(report: dict[str, Any], out: Path | None) -> None:
    """Print the report as one line of JSON, and write it, indented, to `out`."""
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))

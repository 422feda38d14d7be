"""Measuring: contestants in turn, so that a busy machine is busy for all of them; peak memory of a process; a name."""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Times:
    """Seconds of every call, by name: on the wall, and of this process's own work (all its threads together).

    Work for a card is not in the latter. On one thread of a crowded machine it is what the clock would have said on an
    idle one; several threads wait for each other busily, and waiting counts.
    """

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]


def interleaved_times(steps: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> Times:
    """Return the seconds of every call: `rounds` rounds in each of which everybody has one turn.

    Whoever begins a round ends the next one. What other processes take falls on all alike, and the ratio within a
    round (see `median_ratio`) feels little of it.
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
    """Return JSON values with five significant digits: no stopwatch has more."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values


def quiet() -> None:
    """Keep what diffusers says about models that no user of a benchmark will ever load off the screen."""
    import diffusers

    diffusers.logging.set_verbosity_error()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """The most memory that this process (or the card, for a CUDA device) held at once, from `reset` on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Forget what was held before."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            # 5 resets the high-water mark of the resident set (proc(5)).
            _CLEAR.write_text("5")

    def bytes(self) -> int:
        """Return the peak in bytes; where the mark cannot be reset, that of the whole process."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if _STATUS.exists():
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a reader has to know about where the figures come from."""
    import diffusers

    found: dict[str, Any] = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    if device.type == "cuda":
        return {**found, "device": torch.cuda.get_device_name(device)}
    return {**found, "device": _processor(), "threads": torch.get_num_threads()}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

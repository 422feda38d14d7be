"""Time a training step of the shipped UNet, alone and beside a busy process, by how threads wait.

    python benchmarks/neighbours.py                  # on an otherwise idle machine, all cores
    python benchmarks/neighbours.py --neighbours 2

How threads wait is read when torch is imported, so each way has a process of its own: `ours` as in every command
(`waiting` in model/processors.py), `active` as libraries do by themselves. The processes take turns, first alone, then
beside the neighbours, which only count; there, `ours` is a process that began beside them, `before` the one that was
alone. The last line is JSON: `beside_over_alone` of the three, and `ours_over_active` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import machine, median_ratio, print_report, rounded
from model.processors import cores, waiting

_UNET = Path(__file__).resolve().parents[1] / "model" / "foundation" / "weights" / "sd" / "unet"
_WARM_UP = 3
_SETTLED = 0.5  # seconds until the neighbours run


def stepper() -> None:
    """Do a training step for each line of stdin, and print its seconds."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    network = UNet2DConditionModel.from_pretrained(_UNET, local_files_only=True).float().train()
    shape = (8, network.config.in_channels, network.config.sample_size, network.config.sample_size)
    noisy, text = torch.randn(shape), torch.randn(8, 77, network.config.cross_attention_dim)
    noise_steps = torch.full((8,), 500)
    for _ in sys.stdin:
        begun = time.perf_counter()
        network(noisy, noise_steps, encoder_hidden_states=text).sample.square().mean().backward()
        network.zero_grad()
        print(time.perf_counter() - begun, flush=True)


class Stepper:
    """A process of its own that does a step whenever it is asked."""

    def __init__(self, environment: dict[str, str], threads: int) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOMP_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--stepper"],
            env={**inherited, "OMP_NUM_THREADS": str(threads), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(_WARM_UP):
            self.seconds()

    def seconds(self) -> float:
        """Return the seconds of one step; raise RuntimeError where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"a stepping process ended with {self._process.wait()}")
        return float(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Let `count` processes count inside the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(rounds: int, neighbours: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of `rounds` steps of each way, `alone` and `beside` the neighbours."""
    steppers = {"active": Stepper({}, threads), "ours": Stepper(waiting(), threads)}
    alone = _turns(steppers, rounds)
    with busy(neighbours):
        time.sleep(_SETTLED)
        steppers |= {"before": steppers["ours"], "ours": Stepper(waiting(), threads)}
        beside = _turns(steppers, rounds)
    for one in steppers.values():
        one.close()
    alone["before"] = alone["ours"]
    return {way: {"alone": alone[way], "beside": beside[way]} for way in steppers}


def _turns(steppers: dict[str, Stepper], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in steppers}
    for _ in range(rounds):
        for way, one in steppers.items():
            seconds[way].append(one.seconds())
    return seconds


def main() -> None:
    """Measure and print a report."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="steps of each way, alone and beside")
    parser.add_argument("--neighbours", type=int, default=1, help="busy processes")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of a step (default: all cores)")
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    parser.add_argument("--stepper", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stepper:
        stepper()
        return
    seconds = measure(options.rounds, options.neighbours, options.threads)
    report = {
        "machine": machine(torch.device("cpu")) | {"threads": options.threads},
        "neighbours": options.neighbours,
        "seconds": seconds,
        "beside_over_alone": {way: median_ratio(one["beside"], one["alone"]) for way, one in seconds.items()},
        "ours_over_active": median_ratio(seconds["ours"]["alone"], seconds["active"]["alone"]),
    }
    print_report(rounded(report), options.out)


if __name__ == "__main__":
    main()

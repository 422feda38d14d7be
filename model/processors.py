"""How many processors this process may use, and what its libraries do with them: the one place that decides it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

# Threads of OpenMP (torch, BLAS, faiss) wait for each other in a loop of some 300,000 rounds. Beside another busy
# process it takes the processor from the thread that is waited for. After a short loop they sleep; without any, a step
# on an idle machine takes up to three quarters longer (benchmarks/neighbours.py). Read when torch is imported.
_SPIN = "GOMP_SPINCOUNT"
_ALONE, _BESIDE = "6000", "0"
# The processes of a launcher such as torchrun on this machine.
_PROCESSES = "LOCAL_WORLD_SIZE"
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_RUNNING = Path("/proc/loadavg")
_SAMPLES, _PAUSE = 5, 0.002


def cores() -> int:
    """Return how many processors this process may use: of its machine, its CPU affinity and its container's limit."""
    from joblib import cpu_count

    return int(cpu_count())


def waiting() -> dict[str, str]:
    """Return the variable that says how threads wait: shortly, and more shortly where others keep processors busy.

    To be set before torch is imported. It changes no result.
    """
    others = _others()
    return {_SPIN: _BESIDE if others and others + _share() > (os.cpu_count() or 1) else _ALONE}


def _share() -> int:
    """Return how many threads this process has: those of `OMP_NUM_THREADS`, else its part of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, cores() // int(os.environ.get(_PROCESSES, "1")))


def _others() -> int:
    """Return how many threads of other processes run on this machine, in most of a few samples; 0 where unknown."""
    found = []
    for _ in range(_SAMPLES):
        try:
            found.append(int(_RUNNING.read_text().split()[3].partition("/")[0]) - 1)  # this process runs, too
        except (OSError, ValueError, IndexError):
            return 0
        time.sleep(_PAUSE)
    return sorted(found)[_SAMPLES // 2]


def environment_of(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries have at most so many threads each."""
    return {**dict.fromkeys(_POOLS, str(threads)), _SPIN: _ALONE}


def use_threads() -> None:
    """Give torch and OpenCV this process's share of the cores; `OMP_NUM_THREADS`, where it is set, decides instead.

    The processes that a launcher such as torchrun started on this machine share them. Sums depend on the number of
    threads in their last bit.
    """
    import cv2
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_share())
        cv2.setNumThreads(_share())


def use_one_thread() -> None:
    """Give OpenCV one thread, in each of many processes that draw or read pictures."""
    import cv2

    cv2.setNumThreads(1)


def session_options() -> Any:
    """Return ONNX Runtime's options for one thread: sums then always have the same order, in however many processes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options

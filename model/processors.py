"""How many processors this process may use, and what its libraries do with them: the one place that decides it."""

from __future__ import annotations

import os

# Threads of OpenMP (torch, BLAS, faiss) wait for each other in a loop of some 300,000 rounds. Beside another busy
# process it takes the processor from the thread that is waited for. After a short loop they sleep; without any, a step
# on an idle machine takes a third longer (benchmarks/neighbours.py). Read when torch is imported.
SHORT_SPIN: dict[str, str] = {"GOMP_SPINCOUNT": "3000"}
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def cores() -> int:
    """Return how many processors this process may use: of its machine, its CPU affinity and its container's limit."""
    from joblib import cpu_count

    return int(cpu_count())


def environment_of(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries have at most so many threads each."""
    return {**dict.fromkeys(_POOLS, str(threads)), **SHORT_SPIN}


def use_threads() -> None:
    """Give torch and OpenCV this process's share of the cores; `OMP_NUM_THREADS`, where it is set, decides instead.

    The processes that a launcher such as torchrun started on this machine share them. Sums depend on the number of
    threads in their last bit.
    """
    import cv2
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        share = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        torch.set_num_threads(share)
        cv2.setNumThreads(share)

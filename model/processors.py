"""How many processors this process may use, and what its libraries do with them: the one place that decides it."""

from __future__ import annotations

import os

# Threads of OpenMP (torch, BLAS, faiss) wait for each other in a loop. Beside another busy process, the loop takes the
# processor from the thread that it waits for; asleep they do not (benchmarks/neighbours.py). Read as torch is imported.
PASSIVE: dict[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def cores() -> int:
    """Return how many processors this process may use: of its machine, its CPU affinity and its container's limit."""
    from joblib import cpu_count

    return int(cpu_count())


def environment_of(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries have at most so many threads each."""
    return {**dict.fromkeys(_POOLS, str(threads)), **PASSIVE}


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

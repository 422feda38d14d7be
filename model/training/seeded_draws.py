"""Draw the photos and all random numbers of a step, as pure functions of the seed and the step.

So a killed training resumes exactly: the number of its last step suffices. Of several processes each draws the numbers
of the whole step and takes its part, so that N processes train as one does with N times the batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

Batch = TypeVar("Batch")


def positions(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """Return the indices (batch,) int64, below `count`, of the items of `step`, for all processes together.

    Steps run through one shuffled epoch after another.
    """
    index = np.arange(step * batch, (step + 1) * batch)
    epochs, places = index // count, index % count
    return np.array(
        [_shuffled(seed, int(epoch), count)[place] for epoch, place in zip(epochs, places, strict=True)], np.int64
    )


def share_of(batch: int, rank: int) -> slice:
    """Return which items of a step process `rank` takes: processes take neighbouring parts of `batch` items each."""
    return slice(rank * batch, (rank + 1) * batch)


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(count)


def generator(seed: int, purpose: str, step: int, rank: int = 0) -> np.random.Generator:
    """Return the random generator for a seed, purpose, step and process; each combination has its own."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), step, rank])


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 Gaussian noise from the host's generator, so that it is the same for every device."""
    return rng.standard_normal(shape, dtype=np.float32)


def stratified_steps(rng: np.random.Generator, count: int, total: int, shift: float = 1.0) -> np.ndarray:
    """Return a stratified sample of `count` noise steps below `total`, int64.

    Every batch covers all noise levels evenly, which removes most of the variance of its loss and gradient. A `shift`
    s above 1 moves steps towards more noise: u = step / total becomes s·u / (1 + (s - 1)·u) (Esser et al., ICML 2024).
    """
    shares = (rng.permutation(count) + rng.random(count)) / count
    shares = shift * shares / (1 + (shift - 1) * shares)
    return np.minimum((shares * total).astype(np.int64), total - 1)


def decayed_shift(shift: float, step: int, steps: int) -> float:
    """Return the noise shift at `step` of `steps`, which decays from `shift` to 1 by the same factor every step.

    Identity is decided at high-noise steps, expression and pose at lower noise: so training starts with identity.
    """
    return float(shift ** (1 - step / steps))


def prefetch(make: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """Yield `make(step)` for the steps from `start` to `stop` - 1; a thread computes the next one meanwhile."""
    if start >= stop:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        coming = pool.submit(make, start)
        for step in range(start + 1, stop):
            batch = coming.result()
            coming = pool.submit(make, step)
            yield batch
        yield coming.result()

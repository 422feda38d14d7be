"""What happens at which step, as a pure function of the seed: the order of the data, and every random number.

So a training that was killed needs nothing but the step it had reached to go on exactly as if it had not been.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

Batch = TypeVar("Batch")


def positions(seed: int, step: int, batch: int, count: int, *, rank: int = 0, world: int = 1) -> np.ndarray:
    """Return which of `count` things process `rank` of `world` takes at `step`, (batch,) int64.

    Together the steps run through one shuffled pass after another; processes take neighbouring parts of a pass.
    """
    first = (step * world + rank) * batch
    index = np.arange(first, first + batch)
    epochs, places = index // count, index % count
    return np.array(
        [_shuffled(seed, int(epoch), count)[place] for epoch, place in zip(epochs, places, strict=True)], np.int64
    )


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(count)


def generator(seed: int, purpose: str, step: int, rank: int = 0) -> np.random.Generator:
    """Return the generator of one purpose at one step in one process."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), step, rank])


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 Gaussian noise: drawn on the host, so that every device sees the same."""
    return rng.standard_normal(shape, dtype=np.float32)


def spread(rng: np.random.Generator, count: int, total: int, shift: float = 1.0) -> np.ndarray:
    """Return `count` noise steps of `total`, int64, each uniform, together spread evenly over the schedule.

    Every batch then sees all noise levels alike, which takes most of the noise out of its loss and its gradient. A
    `shift` s above 1 moves the steps towards the noisy end, share u to s·u / (1 + (s - 1)·u) (Esser et al., ICML 2024).
    """
    shares = (rng.permutation(count) + rng.random(count)) / count
    shares = shift * shares / (1 + (shift - 1) * shares)
    return np.minimum((shares * total).astype(np.int64), total - 1)


def faded(shift: float, step: int, steps: int) -> float:
    """Return what is left of a `shift` at `step` of `steps`, which falls to 1 by the same factor every step.

    Who somebody is is decided at noisy steps, what the face does at later ones: so a training learns the one first.
    """
    return float(shift ** (1 - step / steps))


def prefetch(make: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """Yield `make(step)` for the steps from `start` to `stop` - 1, the next one being made while one is used."""
    if start >= stop:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        coming = pool.submit(make, start)
        for step in range(start + 1, stop):
            batch = coming.result()
            coming = pool.submit(make, step)
            yield batch
        yield coming.result()

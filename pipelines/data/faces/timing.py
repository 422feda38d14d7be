"""Measure the time that each step of the analysis takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The steps of analysing a photo, in order. Choosing the face belongs to `detect`, the pose to `landmarks`, cutting the
# stored square to `encode`.
STEPS: tuple[str, ...] = ("decode", "detect", "landmarks", "embed", "caption", "encode")


class StepTimes:
    """Seconds by step, added up over all analysed photos; `clock` defaults to wall time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STEPS, 0.0)
        self._clock = clock

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to a step, also where the block raises."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - started

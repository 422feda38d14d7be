"""Where the time of looking at photos goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The parts of looking at a photo, in their order. Choosing the face belongs to `detect`, the pose to `landmarks`,
# cutting the stored square to `encode`.
PARTS: tuple[str, ...] = ("decode", "detect", "landmarks", "embed", "caption", "encode")


class PartTimes:
    """Seconds by part, added up over every photo that was looked at; by the wall's clock if no other is given."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._clock = clock

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a part; a block that raises counts too."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - started

"""How much of something one caller of the page may use in a window of time."""

from __future__ import annotations

import math
import time

from cachetools import TTLCache
from starlette.exceptions import HTTPException

# Callers that are remembered; each of them costs some hundred bytes.
_MAX_CALLERS = 10_000


class Budget:
    """Counts by caller what is used of `limit` in windows of `seconds`; `what` is in the reason of a refusal."""

    def __init__(self, limit: int, seconds: float, what: str) -> None:
        self._limit = limit
        self._seconds = seconds
        self._what = what
        self._used: TTLCache[tuple[str, int], int] = TTLCache(_MAX_CALLERS, 2 * seconds)

    def check(self, caller: str, amount: int = 1) -> None:
        """Raise HTTPException (429) where `caller` has less than `amount` left."""
        if self._used.get((caller, self._window()), 0) + amount > self._limit:
            wait = math.ceil(self._seconds - time.time() % self._seconds)
            raise HTTPException(429, f"{self._what}; try again in {wait} s", {"Retry-After": str(wait)})

    def spend(self, caller: str, amount: int = 1) -> None:
        """Count `amount` as used by `caller`; raises as `check`, and counts nothing then."""
        self.check(caller, amount)
        key = caller, self._window()
        self._used[key] = self._used.get(key, 0) + amount

    def _window(self) -> int:
        return int(time.time() // self._seconds)

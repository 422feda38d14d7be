"""Locks between processes: held alone, or together with others. Nobody waits for long."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

# Seconds within which whoever holds a lock for a moment has let it go.
_MOMENT, _POLL = 5.0, 0.02


@contextmanager
def hold(lock: Path, taken: Exception) -> Iterator[None]:
    """Hold the file `lock` during the block; raise `taken` where another process holds it. Creates its folder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise taken from None
    with held:
        yield


@contextmanager
def share(lock: Path, taken: Exception, alone: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the file `lock` together with others who share it; raise `taken` where a process holds it alone.

    `alone` is called first by a process that finds nobody else there. `hold` and `is_held` see who shares a lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+b") as file:
        if alone is not None and _lock(file, fcntl.LOCK_EX):
            alone()
        until = time.monotonic() + _MOMENT
        while not _lock(file, fcntl.LOCK_SH):
            if time.monotonic() > until:
                raise taken
            time.sleep(_POLL)
        yield


def _lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(lock: Path) -> bool:
    """Return whether a process holds the file `lock`; the file is not created."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True

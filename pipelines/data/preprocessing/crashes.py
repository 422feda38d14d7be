"""Reject photos that crash the worker, so that the rest of their slice is analysed.

A decoder that crashes ends its worker, and the retry meets the same photo. So after a crash the slice is analysed photo
by photo, and a file names the photo being analysed. A photo that was being analysed in two crashes is rejected; one
crash is not enough, as a worker may be killed for other reasons.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.core.files import write_atomically

_CRASHES = 2
CRASH_DETAIL = f"{_CRASHES} worker processes died while they analysed this photo"


class CrashLog:
    """The number of crashes at each photo of a slice, in a file beside the slice."""

    def __init__(self, slice_file: Path) -> None:
        self._file = slice_file.with_name(f".{slice_file.stem}.crashes")
        try:
            self._counts = Counter(json.loads(self._file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            self._counts = Counter()

    def crashes_workers(self, image_id: str) -> bool:
        """Whether this photo was being analysed in two crashes."""
        return self._counts[image_id] >= _CRASHES

    @contextmanager
    def analysing(self, image_id: str) -> Iterator[None]:
        """Count a crash at this photo while the block runs: an exception, such as that of a full disk, is none."""
        self._write(self._counts + Counter([image_id]))
        try:
            yield
        finally:
            self._write(self._counts)

    def delete(self) -> None:
        """Delete the file: the slice is finished."""
        self._file.unlink(missing_ok=True)

    def _write(self, counts: Counter[str]) -> None:
        if counts:
            write_atomically(self._file, json.dumps(counts))
        else:
            self.delete()

"""Photos that kill the process that looks at them: found, and left out, so that they cost only themselves.

A decoder that crashes takes its worker along, and the retry meets the same photo. So a slice whose worker died is
looked at photo by photo, with a note of which one it is at. A photo that was being looked at in two deaths is a
culprit; once may be chance (a worker may be killed for other reasons).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEATHS = 2
CULPRIT = f"{_DEATHS} worker processes died while they were looking at one photo"


class Suspects:
    """The notes of one slice, a file beside where the slice will be."""

    def __init__(self, slice_file: Path) -> None:
        self._file = slice_file.with_name(f".{slice_file.stem}.suspects")
        try:
            self._deaths = Counter(json.loads(self._file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            self._deaths = Counter()

    def is_culprit(self, image_id: str) -> bool:
        """Whether this photo was being looked at in two deaths."""
        return self._deaths[image_id] >= _DEATHS

    @contextmanager
    def looking_at(self, image_id: str) -> Iterator[None]:
        """Note that the photo is being looked at until the block ends."""
        self._write(self._deaths + Counter([image_id]))
        yield
        self._write(self._deaths)

    def forget(self) -> None:
        """Delete the notes: the slice is finished."""
        self._file.unlink(missing_ok=True)

    def _write(self, deaths: Counter[str]) -> None:
        self._file.write_text(json.dumps(deaths), encoding="utf-8")

"""Versions of file formats: a file states its own under the key `format`; one that states none has version 1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "format"
_MOST_BYTES = 16 * 2**20
UPGRADE = "upgrade the program (git pull, make env) or use a file of an older one"


class NewerFormatError(ValueError):
    """A file is of a newer format than this program reads; the message names both."""


@dataclass(frozen=True)
class Format:
    """A kind of file, and the newest version of its format, which this program writes; older ones are read."""

    name: str
    version: int

    def check(self, file: object, stated: object) -> int:
        """Return the version that `file` states (None: 1).

        Raise NewerFormatError for a newer one, ValueError for what is not a version.
        """
        if stated is None:
            return 1
        if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
            raise ValueError(f"{file}: format {stated!r} is not a version of {self.name}; expected 1 to {self.version}")
        if stated > self.version:
            raise NewerFormatError(
                f"{file}: {self.name} in format {stated}, this program reads formats up to {self.version}: {UPGRADE}"
            )
        return stated


def read_object(file: Path, advice: str) -> dict[str, Any]:
    """Return the JSON object in `file`; raise ValueError, which ends with `advice`, where there is none.

    Files of more than 16 MB, and objects nested more deeply than Python's recursion limit, are none.
    """
    too_long = file.stat().st_size > _MOST_BYTES
    try:
        content = None if too_long else json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: damaged, not a JSON object; {advice}")
    return content


ADAPTER = Format("an adapter", 4)
CHECKPOINT = Format("a training checkpoint", 2)
RECORDS = Format("a cache of records", 2)

"""Versions of file formats: a file states its own under the key `format`; one that states none has version 1."""

from __future__ import annotations

from dataclasses import dataclass

KEY = "format"
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


ADAPTER = Format("an adapter", 1)
CHECKPOINT = Format("a training checkpoint", 2)
RECORDS = Format("a cache of records", 2)

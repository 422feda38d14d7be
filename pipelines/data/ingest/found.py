"""What a layout reader hands over: pictures with their labels, and files left out with the reason."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

# A file of one of these names claims to be a picture, whatever its bytes are.
PICTURE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".heic"}
    | {".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# A file of any other name is taken for one when it begins like one.
_SIGNATURES: tuple[re.Pattern[bytes], ...] = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"\xff\xd8\xff",
        rb"\x89PNG\r\n\x1a\n",
        rb"GIF8[79]a",
        rb"RIFF....WEBP",
        rb"II\*\x00|MM\x00\*",
        rb"....ftyp(avif|avis|heic|heix|mif1)",
        rb"\x00\x00\x00\x0cjP  ",
    )
)
SIGNATURE_BYTES = 16

_PERCENT = re.compile(r"%(?=[0-9A-Fa-f]{2})")
_CODE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Labels:
    """What is known of a photo beside its bytes; None where nothing is."""

    identity: str | None = None
    prompt: str | None = None
    face_prompt: str | None = None
    source: str | None = None
    licence: str | None = None
    consent: str | None = None

    def updated(self, told: Labels) -> Labels:
        """Return these labels with every value that `told` has."""
        return replace(self, **{name: value for name, value in vars(told).items() if value is not None})


@dataclass(frozen=True)
class Found:
    """One picture: its name in the dataset, where its bytes are (`path` or `data`), how many, and its labels."""

    file_name: str
    path: str | None
    data: bytes | None
    n_bytes: int
    labels: Labels


@dataclass(frozen=True)
class Skipped:
    """One input that becomes no row, and why."""

    file_name: str
    reason: str


def is_picture_name(name: str) -> bool:
    """Whether a file of this name claims to be a picture."""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def is_picture_start(start: bytes) -> bool:
    """Whether bytes begin as a picture does; `start` holds the first SIGNATURE_BYTES of a file."""
    return any(pattern.match(start) for pattern in _SIGNATURES)


def row_name(relative: str) -> str:
    """Return the `file_name` of a row: text as it is, bytes that are not UTF-8 as %XX.

    `relative` is a name as the file system gives it (undecodable bytes as surrogates). A per cent sign that would be
    read as such a code is itself written %25, so two different names never become one.
    """
    raw = os.fsencode(relative) if isinstance(relative, str) else relative
    text = raw.decode("utf-8", "surrogateescape")
    escaped = _PERCENT.sub("%25", text)
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in escaped)


def system_name(file_name: str) -> str:
    """Return a row's `file_name` as the file system has it: the inverse of `row_name`."""
    raw = file_name.encode("utf-8", "surrogateescape")
    return os.fsdecode(_CODE.sub(lambda found: bytes([int(found.group(1), 16)]), raw))


def one_line(text: object) -> str | None:
    """Return `text` with its white space collapsed, or None where it is no string or empty."""
    if not isinstance(text, str):
        return None
    # Lone surrogates (JSON's "\\ud83d") cannot be stored as UTF-8.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(clean.replace("\x00", " ").split()) or None

"""What layout readers yield: pictures with their labels, and skipped files with the reason. Rules for file names."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace

from pipelines.core.people import normal_name
from pipelines.data.rights import as_text

# A file with one of these suffixes is treated as a picture, whatever its bytes are.
PICTURE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".heic"}
    | {".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"}
)
TAR_SUFFIXES: tuple[str, ...] = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A file with any other name is treated as a picture when it begins with one of these signatures.
_SIGNATURES: tuple[re.Pattern[bytes], ...] = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"\xff\xd8\xff",
        rb"\x89PNG\r\n\x1a\n",
        rb"GIF8[79]a",
        rb"RIFF....WEBP",
        rb"II\*\x00|MM\x00\*",
        rb"....ftyp(avi[fs]|he[iv][cmsx]|m[is]f1)",
        rb"\x00\x00\x00\x0cjP  ",
    )
)
SIGNATURE_BYTES = 16
# Of different consents for one photo, this many are kept.
_CONSENTS = 20

_PERCENT = re.compile(r"%(?=[0-9A-Fa-f]{2})")
_CODE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Labels:
    """The labels of a photo; None where unknown. `identity` is in its normal form, whatever the layout wrote."""

    identity: str | None = None
    prompt: str | None = None
    face_prompt: str | None = None
    source: str | None = None
    licence: str | None = None
    consent: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", normal_name(self.identity) or None)

    def updated(self, other: Labels) -> Labels:
        """Return a copy of these labels in which the known labels of `other` replace them."""
        given = {name: value for name, value in vars(other).items() if value is not None}
        if self.consent is not None and other.consent not in (None, self.consent):
            given["consent"] = _all_of(self.consent, other.consent)
        return replace(self, **given)

    def conflicts(self, other: Labels) -> list[str]:
        """Return the names of the labels that both have, with different values."""
        return [
            name
            for name, value in vars(self).items()
            if value is not None and getattr(other, name) not in (None, value)
        ]


@dataclass(frozen=True)
class FoundPhoto:
    """One picture: its name in the dataset, the file that it is (in), its size in bytes (0: unknown), and its labels.

    `member`: its number in a tar archive or a Parquet file.
    """

    file_name: str
    path: str
    n_bytes: int
    labels: Labels
    member: int | None = None


@dataclass(frozen=True)
class Skipped:
    """One input that does not become a row, and the reason."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Unmatched(Skipped):
    """A label that reaches no row: `label` is its file or entry ("list.json[3]"), `file_name` the photo it names."""

    label: str = ""


def _all_of(*consents: str) -> str | None:
    """Return different consents as one flat list, which is kept but is no clear yes."""
    texts: dict[str, None] = {}
    for consent in consents:
        try:
            several = json.loads(consent) if consent.startswith("[") else None
        except (ValueError, RecursionError):
            several = None
        if not isinstance(several, list) or not all(isinstance(text, str) for text in several):
            several = [consent]
        texts |= dict.fromkeys(several)
    return as_text([*list(texts)[:_CONSENTS], *(["…"] if len(texts) > _CONSENTS else [])])


def is_picture_name(name: str) -> bool:
    """Whether the suffix of this name is that of a picture."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (millions of names)


def is_tar_name(name: str) -> bool:
    """Whether the suffix of this name is that of a tar shard."""
    return name.lower().endswith(TAR_SUFFIXES)


def is_picture_start(start: bytes) -> bool:
    """Whether `start`, at least the first SIGNATURE_BYTES of a file, begins like a picture format."""
    return any(pattern.match(start) for pattern in _SIGNATURES)


def row_name(relative: str) -> str:
    """Return the `file_name` of a row: the text unchanged, bytes that are not UTF-8 as %XX.

    `relative` is a name from the file system (undecodable bytes as surrogates). A per cent sign before two hexadecimal
    digits is written %25, so different names stay different.
    """
    raw = os.fsencode(relative) if isinstance(relative, str) else relative
    text = raw.decode("utf-8", "surrogateescape")
    escaped = _PERCENT.sub("%25", text)
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in escaped)


def system_name(file_name: str) -> str:
    """Return the name in the file system of a row's `file_name`: the inverse of `row_name`."""
    raw = file_name.encode("utf-8", "surrogateescape")
    return os.fsdecode(_CODE.sub(lambda code: bytes([int(code.group(1), 16)]), raw))


def one_line(text: object) -> str | None:
    """Return `text` with its white space collapsed, or None where it is empty or not a string."""
    if not isinstance(text, str):
        return None
    # Lone surrogates (JSON's "\\ud83d") cannot be stored as UTF-8.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(clean.replace("\x00", " ").split()) or None

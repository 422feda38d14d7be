"""Name exported files: turn a row's name into a path that stays inside the folder and is not hidden."""

from __future__ import annotations

import hashlib
import os

from pipelines.data.ingest.label_files import CAPTIONS, TABLES, UNREAD
from pipelines.data.ingest.photo_files import system_name

# Bytes that file systems allow in one part of a path, with room for a suffix.
_PART_BYTES = 200
# Pillow's name of a format → suffix.
_SUFFIXES: dict[str, str] = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
}


def file_path(file_name: str) -> str:
    """Return a row's `file_name` as a relative path of the file system: the inverse of ingest's `row_name`.

    %XX become bytes. Parts that would lead elsewhere or hide the file ("", ".", "..", ".x") and bytes that names cannot
    hold are replaced, and parts that are too long are cut.
    """
    raw = os.fsencode(system_name(file_name))
    parts = [_part(part) for part in raw.split(b"/") if part not in (b"", b".")]
    return os.fsdecode(b"/".join(parts) or b"_")


def folder_name(identity: str) -> str:
    """Return an identity as a safe relative folder with the same parts ("session/anna" has two)."""
    return file_path(identity.replace("%", "%25"))


def suffix_of(image_format: str | None, file_name: str) -> str:
    """Return the suffix of a picture: that of its name, else that of its format, else ".bin"."""
    own = os.path.splitext(file_path(file_name))[1]  # noqa: PTH122 (names that are not UTF-8)
    return own or _SUFFIXES.get(image_format or "", ".bin")


def unlike_labels(path: str, image_format: str | None) -> str:
    """Return a picture's path, with the suffix of its format added where it would be taken for a file of labels."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    is_label = suffix in (*CAPTIONS, *TABLES, *UNREAD)
    return f"{path}{_SUFFIXES.get(image_format or '', '.bin')}" if is_label else path


def with_mark(path: str, image_id: str) -> str:
    """Return `path` with the first 12 digits of the photo's hash added, where another photo has the path."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122
    return f"{stem}-{image_id[:12]}{suffix}"


def stem_of(path: str) -> str:
    """Return a path without its suffix."""
    return os.path.splitext(path)[0]  # noqa: PTH122


def _part(part: bytes) -> bytes:
    clean = part.replace(b"\0", b"_")
    if clean.startswith(b"."):
        clean = b"_" + clean[1:]
    if len(clean) > _PART_BYTES:
        stem, dot, suffix = clean.rpartition(b".")
        if not dot or len(suffix) > 10:
            stem, dot, suffix = clean, b"", b""
        clean = stem[:150] + b"-" + hashlib.sha256(clean).hexdigest()[:16].encode() + dot + suffix
    return clean

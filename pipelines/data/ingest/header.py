"""Read format and size from the header of a picture; no pixel is decoded."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass

from PIL import Image

from pipelines.data.faces.opening import FORMATS, open_picture

# The values of the column `format`: Pillow opens a JPEG of several pictures as MPO.
KNOWN_FORMATS: tuple[str, ...] = (*FORMATS, "MPO")

_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Header:
    """Format (Pillow's name) and stored size in pixels, before any EXIF rotation."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header | None:
    """Return the header of `data`, or None where its format is unknown.

    Any size is accepted: the decoder has the guard against decompression bombs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_picture(data) as picture:
                width, height = picture.size
    except (Exception, Image.DecompressionBombError):  # a damaged header may raise anything
        return _gif_header(data)
    fits = 0 < width <= _INT32 and 0 < height <= _INT32
    return Header(str(picture.format), width, height) if fits else None


def _gif_header(data: bytes) -> Header | None:
    # Pillow opens a GIF only with its first frame; the screen size is in the first ten bytes.
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return Header("GIF", width, height) if width and height else None
    return None

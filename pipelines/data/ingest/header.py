"""Read format and size from the header of a picture; no pixel is decoded."""

from __future__ import annotations

import functools
import io
import struct
import warnings
from dataclasses import dataclass

from PIL import Image

# The formats that preprocessing decodes, the most frequent first.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
# The values of the column `format`: Pillow opens a JPEG of several pictures as MPO.
KNOWN_FORMATS: tuple[str, ...] = (*FORMATS, "MPO")

_INT32 = 2**31 - 1
_PREFIX = 16


@dataclass(frozen=True)
class Header:
    """Format (Pillow's name) and stored size in pixels, before any EXIF rotation."""

    format: str
    width: int
    height: int


@functools.cache
def _load_plugins() -> None:
    Image.init()


def read_header(data: bytes) -> Header | None:
    """Return the header of `data`, or None where its format is unknown.

    Any size is accepted: the decoder has the guard against decompression bombs.
    """
    _load_plugins()
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        # Pillow's `open` refuses huge pictures by a global limit; a plugin alone does not.
        if accept is not None and accept(data[:_PREFIX]) is not True:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = factory(io.BytesIO(data), "")
        except (Exception, Image.DecompressionBombError):  # a damaged header may raise anything
            continue
        width, height = picture.size
        if 0 < width <= _INT32 and 0 < height <= _INT32:
            return Header(str(picture.format), width, height)
    return _gif_header(data)


def _gif_header(data: bytes) -> Header | None:
    # Pillow checks the first frame of a GIF against its limit; the screen size is in the first ten bytes.
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return Header("GIF", width, height) if width and height else None
    return None

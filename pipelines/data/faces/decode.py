"""Decode a file to an upright RGB picture, as a photo viewer shows it."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.data.faces.colours import to_srgb, tones_of
from pipelines.data.faces.opening import open_picture, without_pixel_limit

# EXIF orientation → transpose that makes the stored picture upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Large pictures are converted to RGB in strips of this many pixels, so that a second whole copy never exists.
_STRIP_PIXELS = 2**21

# First and last bytes of formats that have an end marker.
_MARKS: tuple[tuple[bytes, bytes], ...] = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    (b"GIF8", b"\x3b"),
)


class Undecodable(Exception):
    """A file that cannot be decoded; `reason` is one of pipelines.core.row_schemas.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """An upright picture: `image` (H, W, 3) uint8 RGB; `reduction` is the file's longer side divided by the image's."""

    image: np.ndarray
    reduction: float


def decode(data: bytes, *, max_pixels: int, min_side: int, working_side: int) -> Decoded:
    """Decode a photo: EXIF orientation applied, any mode to RGB, transparency over white, an animation's first frame.

    Pictures whose shorter side is at least twice `working_side` are reduced (JPEG: in the DCT domain), but never to a
    shorter side below it. Raises Undecodable with `empty`, `too_large` (more than `max_pixels`, judged by the
    header), `too_small` (shorter side below `min_side`), `truncated` or `unreadable`.
    """
    if not data:
        raise Undecodable("empty", "no bytes")
    try:
        with warnings.catch_warnings(), without_pixel_limit():
            warnings.simplefilter("ignore")
            return _decode(data, max_pixels, min_side, working_side)
    except Undecodable:
        raise
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        cut = isinstance(error, EOFError) or "truncat" in str(error).lower() or _ends_early(data)
        # Pillow's message holds a memory address, which differs from run to run.
        unknown = isinstance(error, UnidentifiedImageError)
        detail = "no picture of a known format" if unknown else " ".join(str(error).split())
        raise Undecodable("truncated" if cut else "unreadable", detail) from None


def _decode(data: bytes, max_pixels: int, min_side: int, working_side: int) -> Decoded:
    with open_picture(data) as file:
        width, height = file.size
        if width * height * getattr(file, "weight", 1) > max_pixels:
            raise Undecodable("too_large", f"{width} x {height} pixels, {max_pixels} allowed")
        if min(width, height) < min_side:
            raise Undecodable("too_small", f"{width} x {height} pixels, {min_side} needed a side")
        if file.format in ("JPEG", "MPO"):
            share = working_side / min(width, height)
            file.draft("", (max(1, round(width * share)), max(1, round(height * share))))
        file.load()
        picture = _reduced(file, max(1, min(file.size) // working_side))
        turn = _TURNS.get(_orientation(file))
    if turn is not None:
        picture = picture.transpose(turn)
    return Decoded(np.array(picture), max(width, height) / max(picture.size))


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable metadata: viewers show the picture as stored
        return 1


def _reduced(file: Image.Image, factor: int) -> Image.Image:
    """Return a loaded picture in RGB with every `factor` x `factor` pixels averaged into one."""
    width, height = file.size
    tones = tones_of(file)
    rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
    if height <= rows:
        return to_srgb(file, tones).reduce(factor)
    picture = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = file.crop((0, top, width, min(top + rows, height)))
        picture.paste(to_srgb(strip, tones).reduce(factor), (0, top // factor))
    return picture


def _ends_early(data: bytes) -> bool:
    """Whether the bytes begin like a known format, but lack its end marker or are shorter than they state."""
    for start, end in _MARKS:
        if data.startswith(start):
            return end not in data[-64:]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + struct.unpack("<I", data[4:8])[0]
    return False

"""Decode a file to an upright RGB picture, as a photo viewer shows it."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

# Photographs only: no format that runs an interpreter (EPS, WMF) or that has no signature (TGA, raw text).
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")

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
# A profile is compared with sRGB on a grid of this many values per channel.
_PROBE_SIDE = 6

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
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # `max_pixels` is checked instead
    try:
        with warnings.catch_warnings():
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
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _decode(data: bytes, max_pixels: int, min_side: int, working_side: int) -> Decoded:
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        width, height = file.size
        if width * height > max_pixels:
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
    full = _full_scale(file)
    rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
    if height <= rows:
        return _to_rgb(file, full).reduce(factor)
    picture = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = file.crop((0, top, width, min(top + rows, height)))
        picture.paste(_to_rgb(strip, full).reduce(factor), (0, top // factor))
    return picture


def _full_scale(picture: Image.Image) -> float:
    """Return the value of white; in 32-bit integer and floating-point modes it follows from the largest value."""
    if picture.mode not in ("I", "F"):
        return 255.0
    greatest = float(picture.getextrema()[1])  # type: ignore[arg-type]
    full = next((scale for scale in (1.0, 255.0, 65535.0) if greatest <= scale), greatest)
    return 255.0 if picture.mode == "I" and full == 1.0 else full


def _to_rgb(picture: Image.Image, full: float) -> Image.Image:
    """Return the picture in RGB (sRGB where it has a colour profile), transparency over white."""
    profile = picture.info.get("icc_profile")
    transparent = picture.has_transparency_data
    if picture.mode.startswith("I;16"):
        # Pillow's conversion clips 16-bit values at 255, so that nearly everything becomes white.
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        values = np.asarray(picture, np.float32)
        picture = Image.fromarray((np.clip(values / full, 0, 1) * 255).astype(np.uint8))
    if transparent:
        layer = picture.convert("RGBA")
        opacity = layer.getchannel("A")
        shown = _to_srgb(layer.convert("RGB"), profile)
        return Image.composite(shown, Image.new("RGB", shown.size, "white"), opacity)
    if picture.mode not in ("RGB", "CMYK", "L"):
        picture = picture.convert("RGB")
    return _to_srgb(picture, profile)


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        change = _transform(profile, picture.mode)
        if change is not None:
            converted = ImageCms.applyTransform(picture, change)
            return picture.convert("RGB") if converted is None else converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform of a colour profile to sRGB, or None where the profile is sRGB.

    None also where it is broken or of another colour space: viewers ignore such profiles. Cached, since building a
    transform takes longer than applying it to a photo, and the photos of a camera share a profile.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        change = ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode != "RGB":
        return change
    steps = np.linspace(0, 255, _PROBE_SIDE).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(_PROBE_SIDE, -1, 3)
    shown = ImageCms.applyTransform(Image.fromarray(colours), change)
    # sRGB under any name returns the same colours, except for rounding.
    same = shown is not None and np.abs(np.asarray(shown).astype(int) - colours.astype(int)).max() <= 2
    return None if same else change


def _ends_early(data: bytes) -> bool:
    """Whether the bytes begin like a known format, but lack its end marker or are shorter than they state."""
    for start, end in _MARKS:
        if data.startswith(start):
            return end not in data[-64:]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + struct.unpack("<I", data[4:8])[0]
    return False

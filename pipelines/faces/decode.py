"""From the bytes of a file to an upright RGB picture, as a photo viewer would show it."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

# Photographs only: no format that runs an interpreter (EPS, WMF) or that anything can pass for (TGA, raw text).
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")

# First and last bytes of formats that end in a mark.
_MARKS: tuple[tuple[bytes, bytes], ...] = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    (b"GIF8", b"\x3b"),
)


class Undecodable(Exception):
    """A file that does not become a picture; `reason` is one of pipelines.records.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """An upright picture: `image` (H, W, 3) uint8 RGB; `reduction` is how many pixels of the file one of it spans."""

    image: np.ndarray
    reduction: float


def decode(data: bytes, *, max_pixels: int, min_side: int, working_side: int) -> Decoded:
    """Decode a photo: EXIF orientation applied, any mode to RGB, transparency over white, an animation's first frame.

    Pictures whose shorter side is at least twice `working_side` are read at a fraction of their size (JPEG: in the
    DCT domain), never below it. Raises Undecodable with `empty`, `too_large` (more than `max_pixels`, judged by the
    header), `too_small` (shorter side below `min_side`), `truncated` or `unreadable`.
    """
    if not data:
        raise Undecodable("empty", "no bytes")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # judged here, by the profile's own bound
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, max_pixels, min_side, working_side)
    except Undecodable:
        raise
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        cut = isinstance(error, EOFError) or "truncat" in str(error).lower() or _ends_early(data)
        raise Undecodable("truncated" if cut else "unreadable", " ".join(str(error).split())) from None
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
        ImageOps.exif_transpose(file, in_place=True)
        picture = _to_rgb(file)
    factor = min(picture.size) // working_side
    if factor >= 2:
        picture = picture.reduce(factor)
    return Decoded(np.array(picture), max(width, height) / max(picture.size))


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture in RGB and, where it carries a colour profile, in sRGB."""
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits to 8 and leaves everything white.
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        values = np.asarray(picture, np.float64)
        full = next(scale for scale in (1.0, 255.0, 65535.0, np.inf) if values.max(initial=0.0) <= scale)
        full = float(values.max()) if np.isinf(full) else 255.0 if picture.mode == "I" and full == 1.0 else full
        picture = Image.fromarray((np.clip(values / full, 0, 1) * 255).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    profile = picture.info.get("icc_profile")
    return _to_srgb(picture, profile) if profile and picture.mode in ("RGB", "CMYK") else picture.convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture.convert("RGB")
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        # A profile that is broken or of another colour space is ignored, as viewers do.
        return picture.convert("RGB")
    return picture.convert("RGB") if converted is None else converted


def _ends_early(data: bytes) -> bool:
    """Whether the bytes begin as a known format does and stop before its end mark."""
    for start, end in _MARKS:
        if data.startswith(start):
            return end not in data[-64:]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + struct.unpack("<I", data[4:8])[0]
    return False

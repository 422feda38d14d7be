"""Photos that are broken, huge, animated, or unusually coded or named, and the expected result of each."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.pipelines.photos import encoded


@dataclass(frozen=True)
class Awkward:
    """The expected result of an awkward file.

    `reason` is the rejection by preprocessing, or None where the picture must be decoded (its status is then `ok` if it
    shows a face). `format`, `width`, `height` are those of the header (stored size, before the EXIF rotation; None
    where it cannot be read); `shown` is (width, height) of the decoded picture.
    """

    reason: str | None
    format: str | None
    width: int | None
    height: int | None
    shown: tuple[int, int] | None


# `file_name` of a row (with percent-encoding of the byte that is not UTF-8) → expected result. The files are made from
# a picture 120 wide and 160 high.
AWKWARD: dict[str, Awkward] = {
    "animated.gif": Awkward(None, "GIF", 120, 160, (120, 160)),
    "caf%E9.jpg": Awkward(None, "JPEG", 120, 160, (120, 160)),
    "cmyk.jpg": Awkward(None, "JPEG", 120, 160, (120, 160)),
    "empty.jpg": Awkward("empty", None, None, None, None),
    "exif_rotated.jpg": Awkward(None, "JPEG", 160, 120, (120, 160)),
    "huge_header.png": Awkward("too_large", "PNG", 20000, 20000, None),
    "sixteen_bit.png": Awkward(None, "PNG", 120, 160, (120, 160)),
    "text.jpg": Awkward("unreadable", None, None, None, None),
    "truncated.jpg": Awkward("truncated", "JPEG", 120, 160, None),
    "zz_copy_of_cmyk.jpg": Awkward("duplicate", "JPEG", 120, 160, None),
}


def drawn_face(width: int = 120, height: int = 160) -> Image.Image:
    """Draw a plain frontal face on a textured background (RGB)."""
    noise = np.random.default_rng(0).integers(90, 140, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    x, y, r = width / 2, height / 2, min(width, height) * 0.36
    draw.ellipse((x - r, y - r * 1.25, x + r, y + r * 1.25), fill=(224, 178, 150))
    for side in (-1, 1):
        draw.ellipse((x + side * r * 0.42 - 7, y - r * 0.3 - 5, x + side * r * 0.42 + 7, y - r * 0.3 + 5), fill="white")
        draw.ellipse((x + side * r * 0.42 - 3, y - r * 0.3 - 3, x + side * r * 0.42 + 3, y - r * 0.3 + 3), fill="black")
    draw.line((x, y - r * 0.1, x - 4, y + r * 0.25), fill=(180, 130, 110), width=3)
    draw.arc((x - r * 0.4, y + r * 0.3, x + r * 0.4, y + r * 0.75), 20, 160, fill=(170, 60, 60), width=4)
    return image


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header claims `width` x `height` pixels, without pixel data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def make_awkward_photos(folder: Path, picture: Image.Image | None = None) -> Path:
    """Write the ten awkward files into `folder`, made from `picture` (RGB, default: a drawn face); return `folder`."""
    face = (picture or drawn_face()).convert("RGB").resize((120, 160))
    folder.mkdir(parents=True, exist_ok=True)
    jpeg = encoded(face, "JPEG", quality=92)
    cmyk = encoded(face.convert("CMYK"), "JPEG", quality=92)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    grey = np.asarray(face.convert("L"), np.uint16) * 257
    frames = [face, face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), face]
    files: dict[str, bytes] = {
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100),
        "cmyk.jpg": cmyk,
        "empty.jpg": b"",
        "exif_rotated.jpg": encoded(face.rotate(90, expand=True), "JPEG", quality=92, exif=orientation),
        "huge_header.png": _png_header(20000, 20000),
        "sixteen_bit.png": encoded(Image.fromarray(grey), "PNG"),
        "text.jpg": b"this is not a picture\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "zz_copy_of_cmyk.jpg": cmyk,
    }
    for name, body in files.items():
        (folder / name).write_bytes(body)
    latin1 = os.path.join(os.fsencode(folder), b"caf\xe9.jpg")  # noqa: PTH118 (pathlib joins no bytes)
    with open(latin1, "wb") as file:  # noqa: PTH123
        file.write(encoded(face, "JPEG", quality=91))
    return folder

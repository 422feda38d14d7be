"""Open the bytes of a picture, without decoding a pixel: the one way in for every picture that users give."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from pipelines.data.faces.deep_tiff import DeepTiff, is_deep

# Photographs only: no format that runs an interpreter (EPS, WMF) or that has no signature (TGA, raw text).
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000")
# The key of `info` under which `open_picture` puts colour codes: primaries and transfer function of ITU-T H.273.
COLOUR_CODES = "colour_codes"

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_NOISE = bytes(range(1, 255)) * 8
_PNG = b"\x89PNG\r\n\x1a\n"
# Metadata is unpacked up to this size, which the largest real colour profiles do not reach; more is ignored.
_MAX_METADATA = 16 * 2**20
# Pillow unpacks text of at most this size, and refuses a picture with more.
_MAX_TEXT = 2**20
_XMP = b"XML:com.adobe.xmp"
_EXIF_AS_TEXT = (b"Raw profile type exif", b"Raw profile type APP1")


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Suspend Pillow's own limit, which is a process's; callers compare the size with a parameter before decoding."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def open_picture(data: bytes) -> Image.Image:
    """Return a picture of one of FORMATS, opened but not decoded; raise what Pillow raises where it is none.

    `info` holds `icc_profile`, `exif` and `xmp` where the file has them, and COLOUR_CODES for H.273's codes.
    """
    # The reader of HEIC is loaded for the first such picture.
    heif = data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis") and _read_heif()
    if is_deep(data):
        return DeepTiff(data)
    unpacked: dict[str, Any] = {}
    if data.startswith(_PNG):
        data, unpacked = _without_metadata(data)
    stream = _EndedJpeg(data) if data.startswith(_JPEG) and _JPEG_END not in data[-64:] else io.BytesIO(data)
    with without_pixel_limit():
        file = Image.open(stream, formats=[name for name in FORMATS if name != "HEIF" or heif])
    if file.format == "PNG" and file.mode == "RGB" and unpacked.pop("depth") == 16:
        # Pillow reads 16-bit colours as 8-bit ones, but leaves the transparent one at 16 bits.
        if isinstance(clear := file.info.get("transparency"), tuple):
            file.info["transparency"] = tuple(value >> 8 for value in clear)
    elif file.format == "JPEG2000":
        unpacked["icc_profile"] = _jp2_profile(data)
    elif file.format in ("AVIF", "HEIF") and not file.info.get("icc_profile"):
        codes = file.info.get("nclx_profile")
        known = (codes["color_primaries"], codes["transfer_characteristics"]) if codes else _avif_codes(data)
        unpacked[COLOUR_CODES] = known
    file.info.update({name: value for name, value in unpacked.items() if value is not None})
    return file


class _EndedJpeg(io.BytesIO):
    """A JPEG without its end mark, which viewers show; the decoder gets the mark where no line is missing."""

    _asked = False

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        if part or size == 0 or self._asked:
            return part
        self._asked = True
        return _JPEG_END if _is_whole(self.getvalue()) else b""


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG without its end mark holds all lines: bytes after its data change none of them."""
    body = data.rstrip(b"\xff")
    try:
        plain, other = (_lightness(body + after + _JPEG_END) for after in (b"", _NOISE))
    except Exception:  # decoders of damaged bytes raise nearly anything
        return False
    return plain == other


def _lightness(data: bytes) -> Image.Image:
    with without_pixel_limit(), Image.open(io.BytesIO(data), formats=["JPEG"]) as file:
        file.draft("L", file.size)
        file.load()
        return file.copy()


def _read_heif() -> bool:
    import pi_heif

    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener(thumbnails=False)
    return True


def _without_metadata(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a PNG without the chunks that Pillow may refuse, and what they held.

    Viewers show a picture whose text or colour profile is large or damaged. Left out are text, except for orientation,
    the colour profile, which is returned, and damaged chunks that a viewer may ignore.
    """
    kept: list[bytes | memoryview] = [data[:8]]
    unpacked: dict[str, Any] = {"depth": data[24] if len(data) > 24 else 8}
    for kind, whole in _chunks(data):
        if kind[:1].isupper():
            kept.append(whole)
            continue
        body = bytes(whole[8:-4])
        if kind == b"iCCP":
            unpacked["icc_profile"] = _inflated(body.partition(b"\0")[2][1:])
        elif kind == b"iTXt" and body.startswith(_XMP + b"\0"):
            unpacked["xmp"] = _international_text(body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, text = body.partition(b"\0")
            plain = _inflated(text[1:]) if kind == b"zTXt" else text
            if keyword in _EXIF_AS_TEXT and plain is not None and len(plain) < _MAX_TEXT:
                kept.append(whole)
        elif kind == b"cICP" and len(body) == 4:
            unpacked[COLOUR_CODES] = (body[0], body[1])
        elif zlib.crc32(kind + body) == int.from_bytes(whole[-4:], "big"):
            kept.append(whole)
    return b"".join(kept), unpacked


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and bytes of every chunk of a PNG; the rest of a file that is cut is one chunk without a type."""
    view, start = memoryview(data), 8
    while start < len(data):
        stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if stop > len(data):
            yield b"IDAT", view[start:]
            return
        yield data[start + 4 : start + 8], view[start:stop]
        start = stop


def _inflated(packed: bytes) -> bytes | None:
    """Return what zlib packed, or None where it is damaged or larger than _MAX_METADATA."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, _MAX_METADATA)
    except zlib.error:
        return None
    return plain if unpacker.eof else None


def _international_text(body: bytes) -> bytes | None:
    """Return the text of an iTXt chunk; None where it is damaged."""
    _, _, rest = body.partition(b"\0")
    packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    return _inflated(text) if packed else text


def _avif_codes(data: bytes) -> tuple[int, int] | None:
    """Return H.273's codes of an AVIF's primary picture, None where it has none: Pillow does not read them."""
    meta = dict(_boxes(data, 0, len(data))).get(b"meta")
    if meta is None:
        return None
    inner = dict(_boxes(data, meta[0] + 4, meta[1]))
    if not {b"pitm", b"iprp"} <= inner.keys():
        return None
    at = inner[b"pitm"][0]
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)], "big")
    tables = dict(_boxes(data, *inner[b"iprp"]))
    properties = list(_boxes(data, *tables[b"ipco"])) if b"ipco" in tables else []
    for number in _associated(data, tables.get(b"ipma"), primary):
        kind, (start, _) = properties[number - 1] if 0 < number <= len(properties) else (b"", (0, 0))
        if kind == b"colr" and data[start : start + 4] == b"nclx":
            return int.from_bytes(data[start + 4 : start + 6], "big"), int.from_bytes(
                data[start + 6 : start + 8], "big"
            )
    return None


def _jp2_profile(data: bytes) -> bytes | None:
    """Return the colour profile of a JPEG 2000 file; Pillow does not read it."""
    header = dict(_boxes(data, 0, len(data))).get(b"jp2h")
    for kind, (start, stop) in _boxes(data, *header) if header else ():
        if kind == b"colr" and data[start] in (2, 3):
            return data[start + 3 : stop]
    return None


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield type and content (start, stop) of the boxes in a part of an ISO media file."""
    while start + 8 <= stop:
        size, head = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        end = stop if size == 0 else start + size
        if end > stop or end < start + head:
            return
        yield data[start + 4 : start + 8], (start + head, end)
        start = end


def _associated(data: bytes, table: tuple[int, int] | None, item: int) -> Iterator[int]:
    """Yield the numbers of an item's properties (`ipma` box)."""
    if table is None:
        return
    at, stop = table
    wide_item, wide_number = data[at] > 0, data[at + 3] & 1
    at += 8
    while at < stop:
        size = 4 if wide_item else 2
        here = int.from_bytes(data[at : at + size], "big")
        count = data[at + size]
        at += size + 1
        for _ in range(count):
            if here == item:
                yield int.from_bytes(data[at : at + 2], "big") & 0x7FFF if wide_number else data[at] & 0x7F
            at += 2 if wide_number else 1

"""Headers are read whatever values they have, and no picture is decoded."""

from __future__ import annotations

import struct
import tracemalloc

import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from pipelines.data.ingest.header import Header, read_header
from tests.pipelines.photos import encoded

pillow_heif.register_heif_opener()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"])
def test_formats(kind: str) -> None:
    assert read_header(encoded(Image.new("RGB", (30, 20), "red"), kind)) == Header(kind, 30, 20)


def test_large_text_does_not_hide_the_header() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    assert read_header(encoded(Image.new("RGB", (30, 20)), "PNG", pnginfo=text)) == Header("PNG", 30, 20)


def test_huge_pictures_are_measured_and_not_decoded() -> None:
    body = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    body[18:26] = struct.pack("<ii", 60000, 50000)
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    tracemalloc.start()
    assert read_header(bytes(body)) == Header("BMP", 60000, 50000)
    assert read_header(gif + b"\x02\x00;") == Header("GIF", 65535, 65535)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"hello", b"\x89PNG\r\n\x1a\n\0\0", b"GIF89a", b"P6\n-1 x"])
def test_bytes_without_a_header_give_none(data: bytes) -> None:
    assert read_header(data) is None

"""What a viewer shows is what is decoded: every mode, depth, colour description and orientation of every format."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pipelines.data.faces.colours import _of_codes
from pipelines.data.faces.decode import Undecodable, decode
from tests.pipelines.photos import UNDO_ORIENTATION, encoded

pillow_heif.register_heif_opener()
WIDTH, HEIGHT = 64, 48
X, Y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
RGB = np.stack([X, Y, 255 - X], -1).astype(np.uint8)
PICTURE = Image.fromarray(RGB)
GREY = np.asarray(PICTURE.convert("L"))
ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
DEEP_GREY = GREY.astype(np.uint16) * 257
DARK = DEEP_GREY // 100
DEEP = RGB.astype(np.uint16) * 257


def _decode(data: bytes) -> np.ndarray:
    return decode(data, max_pixels=10**6, min_side=8, working_side=640).image.astype(int)


def _over_white(values: np.ndarray) -> np.ndarray:
    opacity = (ALPHA if values.ndim == 2 else ALPHA[..., None]) / 255
    return values * opacity + 255 * (1 - opacity)


def _with_alpha(mode: str = "RGB") -> Image.Image:
    picture = PICTURE.convert(mode)
    picture.putalpha(Image.fromarray(ALPHA))
    return picture


def _assert_shows(data: bytes, expected: np.ndarray, tolerance: float) -> None:
    shown = _decode(data)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected.astype(int)).mean() <= tolerance


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(depth: int, colour: int, values: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of `values` (big-endian where they have 16 bits) with further chunks."""
    lines = b"".join(b"\0" + line.tobytes() for line in values.astype(">u2" if depth == 16 else np.uint8))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _bmp(bits: int, body: bytes, *, masks: tuple[int, ...] = (), header: int = 40, down: bool = False) -> bytes:
    compression = 3 if masks else 0
    height = -HEIGHT if down else HEIGHT
    head = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    head += struct.pack(f"<{len(masks)}I", *masks)
    head = head.ljust(max(header, len(head)), b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def _tiff(values: np.ndarray, *tags: tuple[int, int]) -> bytes:
    """Return an uncompressed TIFF of packed bytes or numbers; `tags` (number, short) replace the usual ones."""
    body = values.tobytes()
    every = {256: WIDTH, 257: HEIGHT, 258: 8 * values.itemsize, 259: 1, 262: 1, 277: 1, 278: HEIGHT, **dict(tags)}
    every |= {273: 8 + 2 + 12 * (len(every) + 2) + 4, 279: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, every[tag]) for tag in sorted(every))
    return b"II*\0" + struct.pack("<IH", 8, len(every)) + entries + b"\0\0\0\0" + body


def _twelve_bits() -> np.ndarray:
    pairs = (GREY.astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    packed = (pairs[:, 0] << 12) | pairs[:, 1]
    return np.stack([packed >> 16, packed >> 8, packed], -1).astype(np.uint8)


def _cv(values: np.ndarray) -> bytes:
    return cv2.imencode(".tiff", values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()


def _bitmap_word(red: int, green: int) -> bytes:
    """Return 16-bit pixels, bottom up, with red, green and blue shifted to the left."""
    flipped = RGB[::-1].astype(np.uint16)
    bits = 6 if red == 11 else 5
    word = (flipped[..., 0] >> 3) << red | (flipped[..., 1] >> (8 - bits)) << green | flipped[..., 2] >> 3
    return word.astype("<u2").tobytes()


BGRX = np.dstack([RGB[::-1, :, ::-1], np.zeros_like(GREY)])
BGRA = np.dstack([RGB[::-1, :, ::-1], ALPHA[::-1]])
_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
_HOLE = np.zeros((HEIGHT, WIDTH), bool)
_HOLE[:20, :20] = True

MODES: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    **{
        f"1 {kind}": (lambda kind=kind: encoded(PICTURE.convert("1"), kind), np.asarray(PICTURE.convert("1")) * 255, 0)
        for kind in ("PNG", "TIFF", "BMP", "PPM")
    },
    **{
        f"P {bits} bits": (
            lambda bits=bits: encoded(PICTURE.quantize(2**bits), "PNG", bits=bits),
            np.asarray(PICTURE.quantize(2**bits).convert("RGB")),
            0,
        )
        for bits in (1, 2, 4, 8)
    },
    **{
        f"{mode} {kind}": (
            lambda mode=mode, kind=kind, options=options: encoded(_with_alpha(mode[:-1]), kind, **options),
            _over_white(RGB if mode == "RGBA" else GREY),
            tolerance,
        )
        for mode, kind, tolerance, options in (
            ("RGBA", "PNG", 1, {}),
            ("LA", "PNG", 1, {}),
            ("RGBA", "TIFF", 1, {}),
            ("LA", "TIFF", 1, {}),
            ("RGBA", "WEBP", 1, {"lossless": True}),
            ("RGBA", "JPEG2000", 1, {"irreversible": False}),
            ("RGBA", "AVIF", 3, {"quality": 100}),
            ("RGBA", "HEIF", 4, {"quality": 100}),
        )
    },
    "L HEIF": (lambda: encoded(PICTURE.convert("L"), "HEIF", quality=100), GREY, 3),
    "RGB HEIF": (lambda: encoded(PICTURE, "HEIF", quality=100), RGB, 3),
    "CMYK TIFF": (lambda: encoded(PICTURE.convert("CMYK"), "TIFF"), RGB, 6),
    "CMYK JPEG, inverted": (lambda: encoded(PICTURE.convert("CMYK"), "JPEG", quality=95), RGB, 6),
    "LAB TIFF": (lambda: encoded(PICTURE.convert("LAB"), "TIFF"), RGB, 6),
    "LAB TIFF with a profile": (
        lambda: encoded(PICTURE.convert("LAB"), "TIFF", icc_profile=_of_codes(12, 13)),
        RGB,
        6,
    ),
    "RGBX TIFF": (lambda: encoded(PICTURE.convert("RGBX"), "TIFF"), RGB, 0),
    "YCbCr JPEG in TIFF": (
        lambda: encoded(PICTURE.convert("YCbCr"), "TIFF", compression="jpeg", quality=95),
        RGB,
        8,
    ),
    "12 bits TIFF": (lambda: _tiff(_twelve_bits(), (258, 12)), GREY, 1),
    "16 bits TIFF": (lambda: encoded(Image.fromarray(DEEP_GREY), "TIFF"), GREY, 1),
    "16 bits TIFF, white is 0": (lambda: _tiff(65535 - DEEP_GREY, (262, 0)), GREY, 1),
    "8 bits TIFF, white is 0": (lambda: _tiff(255 - GREY, (262, 0)), GREY, 1),
    "16 bits JPEG 2000": (lambda: encoded(Image.fromarray(DEEP_GREY), "JPEG2000"), GREY, 1),
    "16 bits RGB TIFF": (lambda: _cv(DEEP), RGB, 1),
    "16 bits RGB PNG": (lambda: _png(16, 2, DEEP), RGB, 1),
    "16 bits RGBA PNG": (
        lambda: _png(16, 6, np.dstack([DEEP, ALPHA.astype(np.uint16) * 257])),
        _over_white(RGB),
        1,
    ),
    "16 bits LA PNG": (
        lambda: _png(16, 4, np.dstack([DEEP_GREY, ALPHA.astype(np.uint16) * 257])),
        _over_white(GREY),
        1,
    ),
    "16 bits L PNG, one value clear": (
        lambda: _png(16, 0, np.where(_HOLE, 0x1234, DEEP_GREY), (b"tRNS", b"\x12\x34")),
        np.where(_HOLE, 255, GREY),
        1,
    ),
    "16 bits RGB PNG, one colour clear": (
        lambda: _png(
            16, 2, np.where(_HOLE[..., None], (0x1234, 0x2345, 0x3456), DEEP), (b"tRNS", b"\x12\x34\x23\x45\x34\x56")
        ),
        np.where(_HOLE[..., None], 255, RGB),
        1,
    ),
    "16 bits PGM": (lambda: b"P5 64 48 65535\n" + DEEP_GREY.astype(">u2").tobytes(), GREY, 1),
    "16 bits PGM, dark": (
        lambda: b"P5 64 48 65535\n" + (DEEP_GREY // 300).astype(">u2").tobytes(),
        DEEP_GREY // 300 // 257,
        1,
    ),
    "10 bits PPM": (
        lambda: b"P6 64 48 1023\n" + (RGB.astype(np.uint32) * 1023 // 255).astype(">u2").tobytes(),
        RGB,
        1,
    ),
    "32 bits unsigned TIFF": (lambda: _tiff(GREY * np.uint32(2**24)), GREY, 1),
    "64 bits floats": (lambda: _tiff(GREY / 255, (339, 3)), GREY, 1),
    "32 bits floats RGB": (lambda: _cv((RGB / 255).astype("f4")), RGB, 1),
    "32 bits floats RGBA": (
        lambda: _tiff(np.dstack([RGB, ALPHA]).astype("f4") / 255, (277, 4), (262, 2), (339, 3), (338, 2)),
        _over_white(RGB),
        1,
    ),
    "32 bits RGB": (lambda: _tiff(RGB * np.uint32(2**24), (277, 3), (262, 2)), RGB, 1),
    "32 bits TIFF": (lambda: encoded(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"), GREY, 1),
    "floats to 1": (lambda: encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), GREY, 1),
    "floats to 255": (lambda: encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), GREY, 1),
    "floats of high dynamic range": (
        lambda: encoded(Image.fromarray((GREY / 128).astype(np.float32)), "TIFF"),
        np.minimum(GREY / 128, 1) * 255,
        1,
    ),
    "floats with NaN and infinity": (
        lambda: encoded(
            Image.fromarray(np.where(_HOLE & (X < 9), np.nan, np.where(_HOLE, np.inf, GREY / 255)).astype("f4")),
            "TIFF",
        ),
        np.where(_HOLE & (X < 9), 0, np.where(_HOLE, 255, GREY)),
        1,
    ),
    "BMP 5-6-5": (lambda: _bmp(16, _bitmap_word(11, 5), masks=(0xF800, 0x7E0, 0x1F)), RGB, 5),
    "BMP 5-5-5": (lambda: _bmp(16, _bitmap_word(10, 5)), RGB, 5),
    "BMP 32 bits": (lambda: _bmp(32, BGRX.tobytes()), RGB, 0),
    "BMP from the top": (lambda: _bmp(32, BGRX[::-1].tobytes(), down=True), RGB, 0),
    "BMP with alpha": (lambda: _bmp(32, BGRA.tobytes(), masks=_MASKS, header=108), _over_white(RGB), 1),
    "BMP with an empty alpha": (lambda: _bmp(32, BGRX.tobytes(), masks=_MASKS, header=108), RGB, 0),
}


@pytest.mark.parametrize("name", MODES)
def test_modes_and_depths(name: str) -> None:
    make, expected, tolerance = MODES[name]
    _assert_shows(make(), expected, tolerance)


def test_a_tiff_that_is_not_read_is_refused_not_shown_in_wrong_colours() -> None:
    planes = _tiff(np.moveaxis(DEEP, 2, 0).copy(), (277, 3), (262, 2), (284, 2), (278, HEIGHT))
    with pytest.raises(Undecodable, match=r"unreadable.*16 bits"):
        _decode(planes)
    with pytest.raises(Undecodable, match="too_large"):
        decode(_cv((RGB / 255).astype("f4")), max_pixels=WIDTH * HEIGHT * 2, min_side=8, working_side=64)


def _profile_of_display_p3() -> bytes:
    return _of_codes(12, 13)


def _in_display_p3() -> Image.Image:
    wide = ImageCms.ImageCmsProfile(io.BytesIO(_profile_of_display_p3()))
    shown = ImageCms.profileToProfile(PICTURE, ImageCms.createProfile("sRGB"), wide)
    assert np.abs(np.asarray(shown).astype(int) - RGB).max() > 50, "the stored numbers differ from sRGB's"
    return shown


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_wide_colour_space_is_converted(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98}
    data = encoded(_in_display_p3(), kind, icc_profile=_profile_of_display_p3(), **options)
    _assert_shows(data, RGB, 5)


def test_colour_codes_of_png_heif_and_avif_are_applied() -> None:
    wide = np.asarray(_in_display_p3())
    _assert_shows(_png(8, 2, wide, (b"cICP", bytes([12, 13, 0, 1]))), RGB, 2)
    codes = {"color_primaries": 12, "transfer_characteristics": 13}
    _assert_shows(encoded(Image.fromarray(wide), "HEIF", quality=100, **codes), RGB, 4)
    plain = encoded(Image.fromarray(wide), "AVIF", quality=100)
    place = plain.index(b"nclx") + 4
    assert plain[place : place + 4] == struct.pack(">HH", 1, 13)
    _assert_shows(plain[:place] + struct.pack(">HH", 12, 13) + plain[place + 4 :], RGB, 4)


def test_pictures_of_high_dynamic_range_keep_white_and_mid_tones() -> None:
    white_in_pq, white_in_hlg = 0.58, 0.75  # 203 nits, by ITU-R BT.2408
    for transfer, signal in ((16, white_in_pq), (18, white_in_hlg)):
        values = np.full((HEIGHT, WIDTH, 3), round(signal * 65535))
        shown = _decode(_png(16, 2, values, (b"cICP", bytes([9, transfer, 0, 1]))))
        assert 225 <= shown.min() <= shown.max() <= 250
        dark = _decode(_png(16, 2, values // 2, (b"cICP", bytes([9, transfer, 0, 1]))))
        assert 40 <= dark.min() <= dark.max() <= 150


def test_gamma_of_png() -> None:
    def gamma(value: int) -> tuple[bytes, bytes]:
        return b"gAMA", struct.pack(">I", value)

    linear = np.where(RGB <= 10, RGB / 255 / 12.92, ((RGB / 255 + 0.055) / 1.055) ** 2.4)
    _assert_shows(_png(16, 2, linear * 65535, gamma(100000)), RGB, 4)
    _assert_shows(_png(8, 2, RGB, gamma(45455)), RGB, 0)
    # sRGB's chunk comes before gamma.
    _assert_shows(_png(8, 2, RGB, (b"sRGB", b"\0"), gamma(100000)), RGB, 0)


def _large_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    text.add_itxt("workflow", "y" * 3_000_000, zip=True)
    text.add_text("plain", "z" * 2_000_000)
    return text


def test_metadata_of_png_does_not_hide_the_picture() -> None:
    large = _profile_of_display_p3() + bytes(3_000_000)
    _assert_shows(encoded(PICTURE, "PNG", pnginfo=_large_text()), RGB, 0)
    _assert_shows(encoded(_in_display_p3(), "PNG", icc_profile=large), RGB, 2)
    # A profile that unpacks to more than any real one is ignored, as is a damaged one.
    _assert_shows(encoded(PICTURE, "PNG", icc_profile=_profile_of_display_p3() + bytes(40_000_000)), RGB, 0)
    _assert_shows(_png(8, 2, RGB, (b"iCCP", b"name\0\0this is not packed")), RGB, 0)
    damaged = bytearray(encoded(PICTURE, "PNG", dpi=(72, 72)))
    damaged[damaged.index(b"pHYs") + 5] ^= 1
    _assert_shows(bytes(damaged), RGB, 0)


def test_a_profile_of_another_kind_is_ignored() -> None:
    grey = _of_codes(12, 13)
    _assert_shows(encoded(PICTURE.convert("CMYK"), "JPEG", quality=95, icc_profile=grey), RGB, 6)
    _assert_shows(encoded(PICTURE.convert("L"), "PNG", icc_profile=grey), GREY, 0)


def _stored(orientation: int) -> Image.Image:
    return PICTURE.transpose(UNDO_ORIENTATION[orientation]) if orientation in UNDO_ORIENTATION else PICTURE


def _xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
    ) % orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once(kind: str, orientation: int) -> None:
    """HEIF and AVIF turn by properties of their own, TIFF by a tag; EXIF and XMP repeat it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    data = encoded(_stored(orientation), kind, exif=exif.tobytes(), **options)
    _assert_shows(data, RGB, 6)
    if kind == "HEIF":
        assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    if kind in ("JPEG", "TIFF", "HEIF"):
        _assert_shows(encoded(_stored(orientation), kind, exif=exif, xmp=_xmp(orientation), **options), RGB, 6)


def test_orientation_in_xmp_alone() -> None:
    _assert_shows(encoded(_stored(6), "JPEG", quality=95, xmp=_xmp(6)), RGB, 6)
    for packed in (False, True):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", _xmp(6).decode() + " " * 2_000_000, zip=packed)
        _assert_shows(encoded(_stored(6), "PNG", pnginfo=text), RGB, 0)


@pytest.mark.parametrize("packed", [False, True])
def test_exif_of_png_as_text(packed: bool) -> None:
    """ImageMagick writes EXIF as hexadecimal text, with a name and a length in front."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = exif.tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(profile):8d}\n{profile.hex()}\n", zip=packed)
    _assert_shows(encoded(_stored(6), "PNG", pnginfo=text), RGB, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF", "MPO"])
def test_the_first_of_several_pictures(kind: str) -> None:
    first, *others = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue", "green"))
    _assert_shows(encoded(first, kind, save_all=True, append_images=others), np.asarray(first), 3)


def test_a_heic_with_too_many_pixels_is_not_decoded() -> None:
    data = encoded(PICTURE, "HEIF")
    with pytest.raises(Undecodable, match="too_large"):
        decode(data, max_pixels=WIDTH * HEIGHT - 1, min_side=8, working_side=640)
    with pytest.raises(Undecodable, match=r"truncated|unreadable"):
        _decode(data[: len(data) // 2])

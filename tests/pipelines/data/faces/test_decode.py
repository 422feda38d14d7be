"""Photos are decoded as a viewer shows them, or rejected with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.data.faces.decode import Undecodable, decode
from tests.pipelines.awkward import AWKWARD
from tests.pipelines.photos import UNDO_ORIENTATION, encoded


def _decode(data: bytes, **bounds: int) -> np.ndarray:
    return decode(data, **{"max_pixels": 10**6, "min_side": 8, "working_side": 640, **bounds}).image


def _gradient(width: int = 64, height: int = 48) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def _rejected(data: bytes, **bounds: int) -> str:
    with pytest.raises(Undecodable) as caught:
        _decode(data, **bounds)
    return caught.value.reason


def test_awkward_photos_are_read_or_rejected_with_their_reason(awkward_photos: Path) -> None:
    for name, expected in AWKWARD.items():
        if expected.reason == "duplicate":
            continue
        file = awkward_photos / name if "%" not in name else next(awkward_photos.glob("caf*.jpg"))
        data = file.read_bytes()
        if expected.reason:
            assert _rejected(data, max_pixels=89_000_000) == expected.reason, name
        else:
            assert _decode(data).shape == (expected.shown[1], expected.shown[0], 3), name


def test_orientation_is_applied() -> None:
    upright = _gradient()
    orientation = Image.Exif()
    orientation[0x0112] = 6
    turned = encoded(upright.rotate(90, expand=True), "JPEG", quality=95, exif=orientation)
    image = _decode(turned)
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - np.asarray(upright).astype(int)).mean() < 4


def test_sixteen_bits_keep_their_tones() -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    image = _decode(encoded(Image.fromarray(grey), "PNG"))
    assert np.abs(image[..., 0].astype(int) - (grey >> 8)).max() <= 1


def test_cmyk_palette_grey_and_progressive_show_the_same_picture() -> None:
    picture = _gradient()
    expected = np.asarray(picture).astype(int)
    variants = {
        "cmyk": (encoded(picture.convert("CMYK"), "JPEG", quality=95), 6),
        "palette": (encoded(picture.quantize(256), "PNG"), 12),
        "palette with few colours": (encoded(picture.quantize(16), "GIF"), 30),
        "progressive": (encoded(picture, "JPEG", quality=95, progressive=True), 4),
        "webp": (encoded(picture, "WEBP", lossless=True), 1),
    }
    for name, (data, tolerance) in variants.items():
        assert np.abs(_decode(data).astype(int) - expected).mean() < tolerance, name
    grey = _decode(encoded(picture.convert("L"), "JPEG", quality=95))
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(mode: str) -> None:
    clear = Image.new("RGBA", (32, 32), (200, 0, 0, 0))
    picture = clear.quantize(2) if mode == "P" else clear.convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    assert (_decode(encoded(picture, "PNG", **options)) == 255).all()


def test_a_colour_profile_is_brought_to_srgb() -> None:
    picture = Image.new("RGB", (32, 32), (120, 60, 200))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = _decode(encoded(picture, "PNG", icc_profile=lab.tobytes()))
    assert (same == (120, 60, 200)).all()
    broken = _decode(encoded(picture, "PNG", icc_profile=b"not a profile"))
    assert (broken == (120, 60, 200)).all()


def _turned_profile() -> bytes:
    """Return an sRGB profile, still named so, whose red and green primaries are exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"____", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"____", b"gXYZ", 1)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_colours_are_what_the_profile_says_whatever_it_is_called(kind: str, mode: str) -> None:
    picture = Image.new("RGB", (32, 32), (220, 40, 30))
    stored = picture.quantize(4) if mode == "P" else picture.convert(mode)
    options = {"lossless": True} if kind == "WEBP" else {}
    image = _decode(encoded(stored, kind, icc_profile=_turned_profile(), **options))
    assert np.abs(image.astype(int) - (40, 220, 30)).max() <= 6, image[0, 0]


def test_grey_follows_its_profile() -> None:
    grey = Image.new("L", (32, 32), 100)
    # A profile of another colour space is ignored.
    assert (_decode(encoded(grey, "PNG", icc_profile=_turned_profile())) == 100).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_upright(kind: str, orientation: int) -> None:
    upright = _gradient()
    stored = upright.transpose(UNDO_ORIENTATION[orientation]) if orientation in UNDO_ORIENTATION else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _decode(encoded(stored, kind, exif=exif))
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - np.asarray(upright).astype(int)).mean() < 5


def test_unreadable_metadata_do_not_reject_the_picture() -> None:
    data = encoded(_gradient(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert _decode(data).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "I;16", "CMYK"])
def test_a_big_picture_read_in_strips_is_the_same_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    big = _gradient(403, 607)
    if mode == "I;16":
        stored = Image.fromarray((np.asarray(big.convert("L")).astype(np.uint16)) * 257)
    elif mode == "RGBA":
        big.putalpha(Image.linear_gradient("L").resize(big.size))
        stored = big
    else:
        stored = big.quantize(200) if mode == "P" else big.convert(mode)
    data = encoded(stored, "TIFF" if mode == "CMYK" else "PNG")
    whole = _decode(data, working_side=100)
    monkeypatch.setattr("pipelines.data.faces.decode._STRIP_PIXELS", 5000)
    assert (_decode(data, working_side=100) == whole).all()
    assert whole.shape == (152, 101, 3)
    shown = _decode(data, working_side=640)
    blocks = shown[:604, :400].reshape(151, 4, 100, 4, 3).mean((1, 3))
    assert np.abs(whole[:151, :100] - blocks).max() <= 1


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    image = _decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (image == (255, 0, 0)).all()


def test_big_photos_are_read_reduced_but_never_below_the_working_side() -> None:
    picture = _gradient(1600, 1200)
    for kind in ("JPEG", "PNG"):
        decoded = decode(encoded(picture, kind), max_pixels=10**7, min_side=8, working_side=300)
        assert min(decoded.image.shape[:2]) == 300, kind
        assert decoded.reduction == pytest.approx(4), kind
    whole = decode(encoded(picture, "JPEG"), max_pixels=10**7, min_side=8, working_side=700)
    assert whole.image.shape == (1200, 1600, 3)
    assert whole.reduction == 1


def test_bounds_are_judged_by_the_header() -> None:
    data = encoded(_gradient(), "PNG")
    assert _rejected(data, max_pixels=64 * 48 - 1) == "too_large"
    assert _rejected(data, min_side=49) == "too_small"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_cut_file_is_truncated_wherever_it_is_cut(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    reasons = {_rejected(data[: len(data) * tenth // 10]) for tenth in range(1, 9)}
    assert reasons <= {"truncated", "unreadable"}
    assert "truncated" in reasons


@pytest.mark.parametrize("data", [b"hello, I am a text", b"\x00" * 400, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_photo_is_unreadable(data: bytes) -> None:
    assert _rejected(data) == "unreadable"


def test_damaged_bytes_are_read_or_rejected_and_never_raise_anything_else() -> None:
    data = encoded(_gradient(), "PNG")
    rng = np.random.default_rng(1)
    reasons = set()
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] ^= 0xFF
        try:
            _decode(bytes(damaged))
        except Undecodable as error:
            reasons.add(error.reason)
    assert reasons
    assert reasons <= {"unreadable", "truncated", "too_large", "too_small"}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": "4:2:0", "optimize": True}]
)
def test_a_jpeg_that_lacks_only_its_end_mark_is_read_and_one_that_lacks_lines_is_not(
    mode: str, options: dict[str, object]
) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((403, 299), Image.Resampling.BICUBIC).convert(mode)
    whole = encoded(picture, "JPEG", quality=90, **options)
    expected = _decode(whole)
    for end in (b"", b"\xff"):
        assert np.array_equal(_decode(whole[:-2] + end), expected), end
        assert _decode(whole[:-2] + end, working_side=64).shape == (75, 101, 3)
    for left in (0.99, 0.8, 0.5, 0.1):
        assert _rejected(whole[: int(len(whole) * left)]) == "truncated", left


@pytest.mark.parametrize(("kind", "mark"), [("PNG", 12), ("GIF", 1)])
def test_other_formats_without_their_end_mark_are_read(kind: str, mark: int) -> None:
    whole = encoded(_gradient(), kind)
    assert np.array_equal(_decode(whole[:-mark]), _decode(whole))

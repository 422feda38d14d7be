"""Convert a decoded picture of any mode, depth and colour space to sRGB."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from pipelines.data.faces.opening import COLOUR_CODES

# A profile is compared with sRGB on a grid of this many values per channel.
_PROBE_SIDE = 6
# Transforms of profiles up to this size are kept.
_CACHED_PROFILE = 2**20
# TIFF's tags, and the number of values from which the scale of floating-point numbers follows.
_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 2**20
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# x and y of red, green and blue by H.273's code. Other codes are shown as sRGB.
_PRIMARIES: dict[int, tuple[float, ...]] = {
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# H.273's codes of transfer functions other than sRGB's, and nits of white in pictures of high dynamic range.
_UNSPECIFIED, _LINEAR, _PQ, _HLG, _WHITE, _PEAK = 2, 8, 16, 18, 203.0, 1000.0
_GAMMAS = {4: 2.2, 5: 2.8}
# Highlights above this share of white are compressed, so that they keep their drawing.
_KNEE = 0.8
# Viewers do not correct a gamma that differs from sRGB's, about 1 / 2.2, by less than 5 %.
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.05
_CURVE = 1024


@dataclass(frozen=True)
class Tones:
    """What the values of a file mean: `white` in modes of more than 8 bits, `inverted` ones, an `opaque` alpha."""

    white: float = 255.0
    inverted: bool = False
    opaque: bool = False


def tones_of(file: Image.Image) -> Tones:
    """Return the tones of a loaded file; where it does not state them, they follow from its values."""
    tags = getattr(file, "tag_v2", {})
    if file.mode.startswith("I;16"):
        bits = min(int(tags.get(_BITS, (16,))[0]), 16)
        return Tones(float(2**bits - 1), inverted=tags.get(_PHOTOMETRIC) == 0)
    if file.mode == "I":
        greatest = float(file.getextrema()[1])  # type: ignore[arg-type]
        deep = file.format == "PPM" or greatest > 255
        return Tones(max(65535.0, greatest) if deep else 255.0)
    if file.mode == "F":
        step = max(1, math.isqrt(file.width * file.height // _SAMPLES))
        values = np.nan_to_num(np.asarray(file)[::step, ::step], posinf=0, neginf=0)
        # In linear values up to 1, those above 1 are highlights.
        linear = float(values.mean()) <= 1
        return Tones(1.0 if linear else next((s for s in (255.0, 65535.0) if values.max() <= s), float(values.max())))
    # Many programs leave the fourth byte of a bitmap empty.
    return Tones(opaque=file.format == "BMP" and file.mode == "RGBA" and file.getchannel("A").getextrema() == (0, 0))


def to_srgb(picture: Image.Image, tones: Tones) -> Image.Image:
    """Return a picture, or a part of it, in RGB: its colours in sRGB, transparency over white."""
    info, transparent = picture.info, picture.has_transparency_data and not tones.opaque
    profile = None if picture.mode == "LAB" else _profile_of(info)
    opacity: Image.Image | None = None
    if picture.mode.startswith(("I", "F")):
        opacity = _clear_values(picture)
        picture = _in_eight_bits(picture, tones)
    elif transparent:
        layer = picture.convert("RGBA")
        opacity = layer.getchannel("A")
        picture = layer.getchannel("R") if picture.mode in ("LA", "La") else layer.convert("RGB")
    if picture.mode not in ("RGB", "CMYK", "L") or (profile != info.get("icc_profile")):
        picture = picture.convert("RGB")
    shown = _converted(picture, profile)
    if opacity is None:
        return shown
    return Image.composite(shown, Image.new("RGB", shown.size, "white"), opacity)


def _in_eight_bits(picture: Image.Image, tones: Tones) -> Image.Image:
    """Return a grey picture of more bits in mode L."""
    if picture.mode.startswith("I;16"):
        # Pillow's conversion clips 16-bit values at 255, so that nearly everything becomes white.
        values = np.asarray(picture).astype(np.uint16)
        full = tones.white == 65535
        grey = (values >> 8 if full else np.minimum(values * (255 / tones.white), 255)).astype(np.uint8)
        return Image.fromarray(255 - grey if tones.inverted else grey)
    floats = np.nan_to_num(np.asarray(picture, np.float32), posinf=tones.white, neginf=0)
    return Image.fromarray((np.clip(floats / tones.white, 0, 1) * 255).astype(np.uint8))


def _clear_values(picture: Image.Image) -> Image.Image | None:
    """Return the opacity (mode L) of a grey picture of more than 8 bits in which one value is transparent."""
    clear = picture.info.get("transparency")
    if not isinstance(clear, int):
        return None
    return Image.fromarray(np.where(np.asarray(picture) == clear, 0, 255).astype(np.uint8))


def _converted(picture: Image.Image, profile: bytes | None) -> Image.Image:
    change = _transform(profile, picture.mode) if profile else None
    if change is not None:
        converted = ImageCms.applyTransform(picture, change)
        return picture.convert("RGB") if converted is None else converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform of a colour profile to sRGB, or None where the profile is sRGB.

    None also where it is broken or of another colour space: viewers ignore such profiles.
    """
    # Building a transform takes longer than applying it to a photo, and the photos of a camera share a profile.
    build = _cached_transform if len(profile) <= _CACHED_PROFILE else _build_transform
    return build(profile, mode)


def _build_transform(profile: bytes, mode: str) -> Any:
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


_cached_transform = lru_cache(maxsize=32)(_build_transform)


def _profile_of(info: dict[Any, Any]) -> bytes | None:
    """Return the ICC profile that describes a picture's colours, None for sRGB.

    As in the PNG specification: the codes of H.273, then the embedded profile, then sRGB, then gamma and primaries.
    """
    codes = info.get(COLOUR_CODES)
    if codes and _UNSPECIFIED not in codes:
        return _of_codes(*codes)
    if info.get("icc_profile"):
        return bytes(info["icc_profile"])
    gamma = info.get("gamma")
    if "srgb" in info or not gamma:
        return None
    white_and_primaries = info.get("chromaticity")
    white, primaries = (white_and_primaries[:2], white_and_primaries[2:8]) if white_and_primaries else (_D65, _SRGB)
    usual = abs(gamma / _SRGB_GAMMA - 1) < _GAMMA_TOLERANCE
    if usual and np.allclose(primaries, _SRGB, atol=0.005) and np.allclose(white, _D65, atol=0.005):
        return None
    exponent = 2.2 if usual else 1 / gamma
    return _matrix_profile(tuple(primaries), tuple(white), tuple(np.linspace(0, 1, _CURVE) ** exponent))


@lru_cache(maxsize=16)
def _of_codes(primaries: int, transfer: int) -> bytes | None:
    """Return a profile for H.273's codes of primaries and transfer function; None where they are shown as sRGB."""
    signal = np.linspace(0, 1, _CURVE)
    curves: dict[int, Callable[[np.ndarray], np.ndarray]] = {_LINEAR: lambda x: x, _PQ: _pq, _HLG: _hlg}
    curves |= {code: lambda x, exponent=exponent: x**exponent for code, exponent in _GAMMAS.items()}  # type: ignore[misc]
    if primaries not in _PRIMARIES and transfer not in curves:
        return None
    light = curves.get(transfer, _srgb)(signal)
    return _matrix_profile(_PRIMARIES.get(primaries, _SRGB), _D65, tuple(light))


def _srgb(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Return the light of SMPTE ST 2084's signal, 1 = white, highlights compressed."""
    powered = signal ** (1 / 78.84375)
    share = np.maximum(powered - 0.8359375, 0) / (18.8515625 - 18.6875 * powered)
    return _compressed(share ** (1 / 0.1593017578125) * 10000 / _WHITE)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Return the light of BT.2100's hybrid log-gamma on a display of 1,000 nits, 1 = white, highlights compressed."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _compressed(scene**1.2 * _PEAK / _WHITE)


def _compressed(light: np.ndarray) -> np.ndarray:
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * np.tanh((light - _KNEE) / (1 - _KNEE) / 4))


@lru_cache(maxsize=16)
def _matrix_profile(primaries: tuple[float, ...], white: tuple[float, ...], curve: tuple[float, ...]) -> bytes:
    """Return an ICC profile (version 2) of primaries and white (x, y) and the curve from signal to light."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    columns = np.stack([xyz(*primaries[at : at + 2]) for at in (0, 2, 4)], 1)
    columns = columns * np.linalg.solve(columns, xyz(*white))
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ xyz(*white))
    columns = np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ columns

    def fixed(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    steps = np.round(np.clip(curve, 0, 1) * 65535).astype(">u2").tobytes()
    trc = b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + steps
    tags = {b"wtpt": fixed(_D50), b"rXYZ": fixed(columns[:, 0]), b"gXYZ": fixed(columns[:, 1])}
    tags |= {b"bXYZ": fixed(columns[:, 2]), b"rTRC": trc, b"gTRC": trc, b"bTRC": trc}
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(_D50)[8:]
    return head.ljust(128, b"\0") + table + body

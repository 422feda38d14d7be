"""Pictures as data URIs, so that the report is a single file."""

from __future__ import annotations

import base64

import cv2
import numpy as np

# Small pictures are stored losslessly, large ones scaled down.
_EXACT_SIDE = 128
_SHOWN_SIDE = 256
_JPEG_QUALITY = 90


def data_uri(image: np.ndarray) -> str:
    """Return a picture (H, W, 3) uint8 RGB as a data URI: PNG up to 128 px, else JPEG of at most 256 px."""
    side = max(image.shape[:2])
    if side > _SHOWN_SIDE:
        scale = _SHOWN_SIDE / side
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    kind, options = ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if side <= _EXACT_SIDE:
        kind, options = ("png", [cv2.IMWRITE_PNG_COMPRESSION, 9])
    _, encoded = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def heat(gate: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the gate map (h, w) as a heat map over a grey copy of `image` (H, W, 3), uint8 RGB.

    The map is scaled to its own maximum: the gate is closed where it is dark, most open where it is brightest.
    """
    height, width = image.shape[:2]
    scaled = gate / max(float(gate.max()), 1e-6)
    large = cv2.resize(scaled.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.rint(np.clip(large, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    blended = 0.35 * grey + 0.65 * cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    return np.rint(blended).astype(np.uint8)


def svg_uri(svg: str) -> str:
    """Return an SVG text as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}"

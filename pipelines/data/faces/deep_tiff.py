"""Read TIFF of more bits per value than Pillow can: colours of 32 bits or floating point, grey of 32 or 64 bits."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _KIND, _PROFILE = 256, 257, 258, 262, 277, 284, 339, 34675
_UNSIGNED, _FLOAT = 1, 3
_MODES = {(1, 1): "L", (2, 3): "RGB", (2, 4): "RGBA"}  # photometric interpretation, samples
# Values are brought to 8 bits in parts of this many.
_PART = 2**20


def is_deep(data: bytes) -> bool:
    """Whether `data` is a TIFF that Pillow does not read, or would read wrong: 16-bit planes, unsigned 32-bit grey."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    try:
        tags = _tags(data)
    except Exception:  # a damaged header may raise anything; Pillow names it
        return False
    samples, bits = tags.get(_SAMPLES, 1), _bits(tags)
    if bits == 16:
        return samples > 1 and tags.get(_PLANES) == 2
    return bits > 16 and (samples > 1 or bits > 32 or _kind(tags) == _UNSIGNED)


class DeepTiff(ImageFile.ImageFile):
    """The first picture of a TIFF, scaled to 8 bits when loaded; raise SyntaxError for a kind that is not read."""

    format, format_description = "TIFF", "TIFF of more than 16 bits"

    def __init__(self, data: bytes) -> None:
        self._data = data
        super().__init__(io.BytesIO(data))

    def _open(self) -> None:
        tags = _tags(self._data)
        mode = _MODES.get((tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1)))
        if mode is None or tags.get(_PLANES, 1) != 1 or _kind(tags) not in (_UNSIGNED, _FLOAT) or _bits(tags) < 32:
            raise SyntaxError(f"a TIFF of {_bits(tags)} bits whose channels are stored in a way that is not read")
        self._size, self._mode = (int(tags[_WIDTH]), int(tags[_HEIGHT])), mode
        self.weight = _bits(tags) * len(mode) / 32
        self.tile = []
        if _PROFILE in tags:
            self.info["icc_profile"] = tags[_PROFILE]

    def load(self) -> Any:
        """Decode the picture, once."""
        if self._im is None:
            values = cv2.imdecode(np.frombuffer(self._data, np.uint8), cv2.IMREAD_UNCHANGED)
            if values is None:
                raise OSError("the picture's data cannot be decoded")
            picture = Image.fromarray(_in_eight_bits(values))
            # OpenCV has turned the picture as its orientation says.
            self._size, self.im = picture.size, picture.im
        return Image.Image.load(self)


def _tags(data: bytes) -> Any:
    file = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2] == 43 or data[3] == 43 else 8))
    file.seek(directory.next)
    directory.load(file)
    return directory


def _bits(tags: Any) -> int:
    return int(max(tags.get(_BITS, (1,))))


def _kind(tags: Any) -> int:
    return int(max(tags.get(_KIND, (_UNSIGNED,))))


def _in_eight_bits(values: np.ndarray) -> np.ndarray:
    """Return values (H, W) or (H, W, C) of any number type, channels BGR(A), as uint8, channels RGB(A)."""
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[-1]]]
    if values.dtype.kind == "f":
        sample = np.nan_to_num(values.reshape(-1)[:: max(1, values.size // _PART)], posinf=0, neginf=0)
        # As in floating-point grey: values above 1 are highlights, unless most are.
        white = 1.0 if float(sample.mean()) <= 1 else max(255.0, float(sample.max()))
    else:
        white = float(np.iinfo(values.dtype).max)
    result = np.empty(values.shape, np.uint8)
    step = max(1, _PART // max(1, values[0].size))
    for top in range(0, len(values), step):
        part = np.nan_to_num(values[top : top + step].astype(np.float64), posinf=white, neginf=0)
        result[top : top + step] = np.clip(part / white, 0, 1) * 255 + 0.5
    return result

"""The page that is handed over shows photos as a viewer shows them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.operations.forgetting.holdings import _small


def _saved(image: Image.Image, kind: str) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a photo of a person " * 200_000, zip=True)
    buffer = io.BytesIO()
    options = {"pnginfo": text} if kind == "PNG" else {}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG with text", "clear PNG", "deep TIFF"])
def test_a_picture_that_viewers_show_is_on_the_page(kind: str) -> None:
    if kind == "PNG with text":
        data, expected = _saved(Image.new("RGB", (300, 200), (200, 30, 30)), "PNG"), (200, 30, 30)
    elif kind == "clear PNG":  # over white, as everywhere else
        data, expected = _saved(Image.new("RGBA", (300, 200), (0, 0, 0, 0)), "PNG"), (255, 255, 255)
    else:
        data, expected = _saved(Image.fromarray(np.full((200, 300), 65535, np.uint16)), "TIFF"), (255, 255, 255)
    address = _small(data)
    assert address is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
    assert max(shown.shape) <= 160
    assert np.abs(shown.reshape(-1, 3).mean(0) - expected).max() < 6

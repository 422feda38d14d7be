"""The page takes every picture that the decoder reads: Gradio's own decoder does not see it."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from gradio.components.image import ImageData
from PIL import Image, PngImagePlugin

from pipelines.webpage.form import _person


def test_an_upload_reaches_the_decoder_as_it_is(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    large = tmp_path / "large.png"
    Image.new("RGB", (30, 20)).save(large, pnginfo=text)
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(large)
    with gr.Blocks():
        photo = _person(0, True).photo
    assert photo.preprocess(ImageData(path=str(large), orig_name="large.png")) == str(large)
    assert photo.preprocess(None) is None

"""A person in a given picture, on bases whose pipelines guide in different ways."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.foundation.random_models import save_random_flux, save_random_models
from model.inference.pipeline import pipeline_class
from model.network.base import load_base
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.serving.given_picture import painting
from pipelines.serving.request import DrawRequest, Reference
from tests.model.inference.pictures import quiet
from tests.random_bases import save_xl
from tests.random_networks import random_adapter

SIDE = 64


def request(**more: Any) -> DrawRequest:
    pixels = np.full((200, 300, 3), 200, np.uint8)
    pixels[:, 150:] = 90
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    given = {"into": Reference("given.png", encoded.getvalue()), "area": (0.2, 0.5, 0.7, 0.8)}
    return DrawRequest((Reference("a.png", b"a"),), "a photo", **given, **more)


@pytest.mark.parametrize("kind", ["sd", "xl", "flux"])
def test_every_family_paints_the_box_and_nothing_else(kind: str, params: Params, tmp_path: Path) -> None:
    models = save_random_flux(tmp_path / "base") if kind == "flux" else save_random_models(tmp_path / "base")
    folder = save_xl(tmp_path / "xl", models.pipeline) if kind == "xl" else models.pipeline
    base = load_base(folder, models.image_encoder)
    pipe = quiet(pipeline_class(folder).from_base(base, random_adapter(base)))
    fixed: dict[str, Any] = {"side": SIDE, "rescale": 0.7, "limits": params.preprocess, "networks": []}
    guidance = 1.0 if kind == "flux" else 2.0
    task, arguments = painting(pipe, request(), guidance=guidance, **fixed)
    assert ("guidance_rescale" in arguments) == (kind == "xl")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 4, int(pipe.adapter.width), generator=generator)
    common = {"num_inference_steps": 2, "guidance_scale": guidance, "generator": generator}
    done = task("a photo", identity_tokens=tokens, **common, **arguments).images[0]
    found = np.asarray(done.convert("RGB")).astype(int)
    assert found.shape == (200, 300, 3)
    outside = np.ones((200, 300), bool)
    # A cell of the latents around the box, for the mask is reduced to them.
    outside[30:150, 140:250] = False
    assert np.abs(found - np.where(np.arange(300) < 150, 200, 90)[None, :, None])[outside].max() <= 1
    assert np.abs(found[60:120, 170:220] - 90).mean() > 5
    if kind == "flux":
        for asked, strong in ((request(), 3.0), (request(negative_prompt="blur"), 1.0)):
            with pytest.raises(UserError, match=r"given\.png: this base paints into a picture without classifier-free"):
                painting(pipe, asked, guidance=strong, **fixed)


def test_a_picture_that_cannot_be_read_is_named(params: Params, tmp_path: Path) -> None:
    models = save_random_models(tmp_path / "base")
    base = load_base(models.pipeline, models.image_encoder)
    pipe = pipeline_class(models.pipeline).from_base(base, random_adapter(base))
    broken = DrawRequest((Reference("a.png", b"a"),), "x", into=Reference("b.png", b"b"), area=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"b\.png: unreadable: .*; expected the picture to paint into"):
        painting(pipe, broken, side=SIDE, guidance=2.0, rescale=0.0, limits=params.preprocess, networks=[])
    with pytest.raises(UserError, match="a given picture and the box to paint: expected both, or none"):
        DrawRequest((Reference("a.png", b"a"),), "x", area=(0.0, 0.0, 1.0, 1.0))

"""What holds in the first steps of a picture alone: the boost inside the boxes, and the layout without LoRA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.face.face import Face
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base
from tests.model.inference.test_pipeline import HALVES, draw, quiet


@pytest.fixture
def pipe(base: Base, make_adapter: Callable[..., Adapter]) -> DynamicIDPipeline:
    return quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))


def test_the_boost_ends_with_its_steps(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    pictures = {
        steps: draw(pipe, faces=faces, boost=2.0, boost_steps=steps, boxes=HALVES).images for steps in (0, 1, 2, 3, 4)
    }
    assert np.array_equal(pictures[0], draw(pipe, faces=faces, boxes=HALVES).images)
    assert np.array_equal(pictures[3], pictures[4])
    for steps in (0, 1, 2):
        assert not np.array_equal(pictures[steps], pictures[steps + 1])


def test_the_base_model_lays_out_the_picture_without_lora(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    kept = {"faces": faces, "boxes": HALVES}
    pictures = {steps: draw(pipe, **kept, layout_steps=steps).images for steps in (0, 1, 2, 3, 4)}
    assert np.array_equal(pictures[0], draw(pipe, **kept).images)
    # All three steps without LoRA, whether it was folded or not.
    assert np.array_equal(pictures[3], pictures[4])
    assert np.array_equal(pictures[3], draw(pipe, **kept, lora_scale=0.0).images)
    for steps in (0, 1, 2):
        assert not np.array_equal(pictures[steps], pictures[steps + 1])
    pipe.fold_lora()
    for steps, picture in pictures.items():
        np.testing.assert_allclose(draw(pipe, **kept, layout_steps=steps).images, picture, atol=2e-3)

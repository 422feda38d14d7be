"""The first steps of a picture: the boost inside the boxes, and the layout without LoRA."""

from __future__ import annotations

import numpy as np

from model.face.face import Face
from model.inference.pipeline import DynamicIDPipeline
from tests.model.inference.pictures import HALVES, draw


def test_the_boost_ends_with_its_steps(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    pictures = {
        steps: draw(pipe, faces=faces, boost=2.0, boost_steps=steps, boxes=HALVES).images for steps in (0, 1, 2, 3, 4)
    }
    assert np.array_equal(pictures[0], draw(pipe, faces=faces, boxes=HALVES).images)
    assert np.array_equal(pictures[3], pictures[4])
    for steps in (0, 1, 2):
        assert not np.array_equal(pictures[steps], pictures[steps + 1])


def test_the_layout_steps_run_without_lora(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    kept = {"faces": faces, "boxes": HALVES}
    pictures = {steps: draw(pipe, **kept, layout_steps=steps).images for steps in (0, 1, 2, 3, 4)}
    assert np.array_equal(pictures[0], draw(pipe, **kept).images)
    # With 3 or more layout steps, all three steps run without LoRA.
    assert np.array_equal(pictures[3], pictures[4])
    assert np.array_equal(pictures[3], draw(pipe, **kept, lora_scale=0.0).images)
    for steps in (0, 1, 2):
        assert not np.array_equal(pictures[steps], pictures[steps + 1])
    pipe.fold_lora()
    for steps, picture in pictures.items():
        np.testing.assert_allclose(draw(pipe, **kept, layout_steps=steps).images, picture, atol=2e-3)

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.pipeline import DynamicIDPipeline
from pipelines.evaluation.sampling import Painter
from pipelines.evaluation.variants import Order
from pipelines.params import Params

ORDERS = [Order(prompt, noise, tokens=None) for prompt in ("a man in a red shirt", "a woman") for noise in (1, 2)]


def test_rescaling_takes_the_contrast_that_guidance_adds(params: Params, project: Path) -> None:
    """How far the spread of the pixels is from that of unguided pictures of the shipped base model."""
    weights = project / "model" / "foundation" / "weights"
    pipe = DynamicIDPipeline.from_folders(weights / "sd", weights / "image_encoder")

    def contrast(guidance: float, rescale: float) -> np.ndarray:
        changed = {"guidance": guidance, "guidance_rescale": rescale, "steps": 6, "batch_size": 4}
        painter = Painter(pipe, params.evaluate.model_copy(update=changed), 64)
        return np.array([drawn.image.std() for drawn in painter.draw(ORDERS)])

    plain = contrast(1.0, 0.0)
    off = [np.abs(contrast(9.0, rescale) - plain).mean() for rescale in (0.0, 0.5, 1.0)]
    assert off[0] > off[1] > off[2]

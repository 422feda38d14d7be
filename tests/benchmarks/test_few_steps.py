"""What the measurement of few steps draws, and what it keeps between steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.few_steps import Way, keeping, requests, ways
from model.foundation.random_models import save_random_models
from model.inference.pipeline import DynamicIDPipeline
from model.network.base import load_base
from model.network.denoisers import attention_layers
from tests.model.inference.pictures import draw, quiet
from tests.random_networks import random_adapter


def test_the_first_way_has_all_steps_and_every_solver_is_tried_with_few() -> None:
    found = ways(20, [4, 8])
    assert (found[0].name, found[1].name) == ("DDIM 20", "DDIM 20 attention from 5")
    assert Counter(one.steps for one in found if not one.keeping) == {20: 1, 4: 6, 8: 6}
    assert len({one.name for one in found}) == len(found)


def test_every_person_is_asked_for_three_expressions_and_a_pose() -> None:
    asked = requests(5)
    assert Counter(one[0] for one in asked) == dict.fromkeys(range(5), 4)
    assert all((one[2] is None) != (one[3] is None) for one in asked)
    assert {one[2] for one in asked} >= set(range(7))
    assert len({one[3] for one in asked if one[3] is not None}) == 4


def test_attention_is_kept_from_a_step_on_in_every_call(tmp_path: Path) -> None:
    models = save_random_models(tmp_path)
    base = load_base(models.pipeline, models.image_encoder)
    pipe = quiet(DynamicIDPipeline.from_base(base, random_adapter(base)))
    people = [torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]

    def drawn(tokens: torch.Tensor) -> np.ndarray:
        return draw(pipe, identity_tokens=tokens, num_inference_steps=4).images

    whole = drawn(people[0])
    layer = next(one for one in attention_layers(pipe.unet).values() if one.is_cross_attention)
    computed: list[Any] = []
    layer.to_q.register_forward_hook(lambda *_: computed.append(1))
    with keeping(pipe, Way("DDIM", 4, {}, "attention from", 1)):
        pictures = [drawn(one) for one in people]
    assert len(computed) == 2
    assert not np.allclose(*pictures, atol=1e-4)
    assert not np.allclose(pictures[0], whole, atol=1e-5)
    assert np.array_equal(drawn(people[0]), whole)
    assert len(computed) == 6

"""Several references of one person are one identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.face.face import MAX_REFERENCES, Face, ReferenceSet
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base
from tests.model.inference.pictures import HALVES, draw


def test_several_references_of_one_person_are_averaged_or_concatenated(
    pipe: DynamicIDPipeline, base: Base, faces: list[Face], make_adapter: Callable[..., Adapter]
) -> None:
    best, other = faces[0], replace(faces[1], landmarks=faces[0].landmarks)
    each = torch.cat([pipe.tokens_of([face], ["sad"]) for face in (best, other)], dim=1)
    both = pipe.tokens_of([ReferenceSet((best, other), "concatenate")], ["sad"])
    assert torch.allclose(both, each, atol=1e-6)
    mean = pipe.tokens_of([ReferenceSet((best, other), "average")], ["sad"])
    assert torch.allclose(mean, (each[:, :4] + each[:, 4:]) / 2, atol=1e-6)
    # Expression and pose are those of the best one, also where no face prompt is given.
    happy = replace(faces[1], expression="happy", pose="left")
    kept = pipe.tokens_of([ReferenceSet((best, happy), "concatenate")])
    assert torch.allclose(kept[:, :4], pipe.tokens_of([best]), atol=1e-6)
    assert not torch.allclose(kept[:, 4:], pipe.tokens_of([happy]), atol=1e-4)
    asked = pipe.tokens_of([ReferenceSet((best, happy), "concatenate")], ["neutral, facing the camera"])
    assert not torch.allclose(asked[:, 4:], pipe.tokens_of([happy], ["neutral"]), atol=1e-4)
    # Without an IMR the tokens stay as they are.
    plain = DynamicIDPipeline.from_base(base, make_adapter(base, imr=False))
    kept = plain.tokens_of([ReferenceSet((best, happy), "concatenate")])
    assert torch.allclose(kept[:, 4:], plain.tokens_of([happy]), atol=1e-6)


def test_references_of_one_photo_draw_as_the_photo_does(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    """Beside another person, with boxes, strengths and guidance: a set weighs as much as one reference."""
    alone = draw(pipe, faces=faces, boxes=HALVES, identity_scale=[1.0, 0.5], boost=2.0, boost_steps=2).images
    for combine in ("average", "concatenate"):
        same = [ReferenceSet((faces[0],) * 3, combine), faces[1]]
        drawn = draw(pipe, faces=same, boxes=HALVES, identity_scale=[1.0, 0.5], boost=2.0, boost_steps=2).images
        assert np.allclose(drawn, alone, atol=2e-4)
        other = [ReferenceSet(tuple(faces), combine), faces[1]]
        assert np.abs(draw(pipe, faces=other, boxes=HALVES).images - alone).max() > 1e-3


def test_wrong_sets_of_references_are_named(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    with pytest.raises(ValueError, match="a set of 1 references: expected 2 to 8"):
        ReferenceSet((faces[0],))
    with pytest.raises(ValueError, match="a set of 9 references"):
        ReferenceSet((faces[0],) * (MAX_REFERENCES + 1))
    with pytest.raises(ValueError, match="combine 'mean': expected one of average, concatenate"):
        ReferenceSet(tuple(faces), "mean")
    uneven = [[ReferenceSet(tuple(faces), "concatenate")], [faces[0]]]
    with pytest.raises(
        ValueError, match=r"concatenated references: \(1,\) and \(2,\) of the people of different pictures"
    ):
        draw(pipe, ["one", "two"], faces=uneven)
    assert draw(pipe, ["one", "two"], faces=[[ReferenceSet(tuple(faces))], [faces[0]]]).images.shape[0] == 2

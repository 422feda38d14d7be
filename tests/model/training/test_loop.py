"""A training ends at the step whose loss is no number, also between two rows of its curve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from model.training.curve import LossCurve
from model.training.loop import _collect


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_between_two_rows_that_is_no_number_ends_the_training(bad: float) -> None:
    accelerator = SimpleNamespace(reduce=lambda values, how: values)
    losses = [{"loss": torch.tensor(value)} for value in (0.5, bad, 0.25)]
    with pytest.raises(FloatingPointError, match=rf"imr: the loss is {bad} at step 8"):
        _collect(LossCurve(), losses, accelerator, "imr", 9)

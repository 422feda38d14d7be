"""What is counted beside the step: the networks that fill the caches, at their true sizes."""

from __future__ import annotations

import pytest

from benchmarks.full_size_models import TEXT, XL_TEXT
from benchmarks.training_memory import others

# Millions of parameters of autoencoder, CLIP ViT-L/14's text model, OpenCLIP bigG's, and CLIP ViT-H/14's vision model.
VAE, FIRST, SECOND, VISION = 83.7, 123.1, 693.4, 632.1


def test_the_autoencoder_of_xl_counts_in_single_precision() -> None:
    assert others((TEXT,), upcast=False) == pytest.approx(2e6 * (VAE + FIRST + VISION), rel=1e-3)
    both = 2e6 * (FIRST + SECOND + VISION) + 4e6 * VAE
    assert others((TEXT, XL_TEXT), upcast=True) == pytest.approx(both, rel=1e-3)

"""A small UNet with the same parts as Stable Diffusion 1.5's, whose steps take milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SMALL: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="session")
def small_unet_config() -> dict[str, Any]:
    return SMALL


@pytest.fixture(scope="session")
def small_unet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config.json for `--unet`."""
    file = tmp_path_factory.mktemp("unet") / "config.json"
    file.write_text(json.dumps(SMALL))
    return file

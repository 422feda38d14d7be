"""Random base models, adapters on them and their published files, which `dynamicid convert` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.pipelines.commands.conversions import SIZES, Convert, write_published


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """Random base models, an adapter with and one without IMR, and published files of the first.

    The sizes in the parameters differ from those of the files: sizes must be read from the shapes of the tensors.
    """
    import numpy as np
    import torch
    import yaml

    from model.foundation.random_models import save_random_models
    from model.network.adapter import Adapter
    from model.network.base import load_base
    from model.network.templates import build_bank

    home = tmp_path_factory.mktemp("home")
    models = save_random_models(home / "base")
    base = load_base(models.pipeline, models.image_encoder)
    torch.manual_seed(0)
    adapter = Adapter.create(base.unet, base.image_encoder, SIZES, 0.25)
    reference = base.reference(str(models.pipeline), str(models.image_encoder))
    adapter.save(home / "anchored", reference)
    adapter.add_reconfigurator(residual=True)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    shapes = np.random.default_rng(0).uniform(0.2, 0.8, (2, 68, 2))
    adapter.templates = torch.from_numpy(build_bank(shapes, ["neutral", "happy"], ["front", "front"]))
    adapter.save(home / "adapter", reference)
    write_published(adapter.state_dict(), home / "published")
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    tree["train_anchoring"]["sizes"] |= {"lora_rank": 64, "reconfigurator_heads": 4, "landmark_width": 8}
    (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return home


@pytest.fixture
def convert(conversions: Path) -> Convert:
    from pipelines.cli import app

    def run(*arguments: str | Path) -> Result:
        command = ["convert", *map(str, arguments), "--params", str(conversions / "params.yaml")]
        return CliRunner().invoke(app, command)

    return run

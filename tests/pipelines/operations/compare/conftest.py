"""Rows of procedural people, random base models and adapters, and parameters of an evaluation of a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from model.foundation.random_models import save_random_models
from model.network.base import load_base
from pipelines.core.params import PARAMS
from tests.pipelines.evaluation.conftest import LAX, SMALL, processed  # noqa: F401
from tests.random_networks import random_adapter

# Random networks judge, and a base that knows nothing draws.
_ASKED = [change for change in SMALL if "variant_cells" not in change]  # a comparison sets it
FEW = (*_ASKED, LAX, "evaluate.steps=1", "evaluate.several_people.two=1", "evaluate.bootstrap=50", "evaluate.people=2")


@dataclass(frozen=True)
class Home:
    """A folder with `params.yaml` for random base models and two adapters, `first` and `second`."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / PARAMS


@pytest.fixture
def home(random_bases: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that is the present folder."""
    root = tmp_path / "home"
    root.mkdir()
    for name in ("first", "second"):
        (root / name).symlink_to(random_bases / name)
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    folders = {"pipeline": "sd", "image_encoder": "image_encoder"}
    tree["base"] |= {key: str(random_bases / "base" / name) for key, name in folders.items()}
    (root / PARAMS).write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_STATE"):
        monkeypatch.delenv(name, raising=False)
    return Home(root)


@pytest.fixture(scope="session")
def random_bases(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def fill(folder: Path) -> None:
        models = save_random_models(folder / "base")
        base = load_base(models.pipeline, models.image_encoder)
        reference = base.reference("sd", "image_encoder")
        for seed, name in enumerate(("first", "second")):
            random_adapter(base, seed=seed).save(folder / name, reference)

    return once("compare", fill)

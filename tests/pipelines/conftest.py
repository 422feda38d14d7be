"""Awkward photos, a checkout with a new MLflow database, and the folder of a trained project: random base models, and
parameters that name the real face networks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from model.foundation.random_models import save_random_models
from model.network.base import load_base
from pipelines.core.params import Params, load_params
from tests.pipelines.awkward import make_awkward_photos
from tests.pipelines.photos import slim_landmarker
from tests.processes import commit_all
from tests.random_networks import random_adapter


@pytest.fixture(scope="session")
def params(project: Path) -> Params:
    """The tiny profile."""
    return load_params(project / "profiles" / "tiny.yaml")


@pytest.fixture
def awkward_photos(tmp_path: Path) -> Path:
    """A flat folder of awkward files made from a drawn face."""
    return make_awkward_photos(tmp_path / "awkward")


@pytest.fixture(scope="session")
def empty_database(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """MLflow's database with the experiment alone, made once: creating its tables is slower than a test."""
    from pipelines.registry.settings import database
    from pipelines.registry.tracking import connect

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
            patch.delenv(name, raising=False)
        return database(once("mlflow", connect))


@pytest.fixture
def mlflow_checkout(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a new MLflow database beside it."""
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_AIRFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy2(empty_database, root / "mlflow.db")
    (root / ".gitignore").write_text("/mlflow.db*\n/.dynamicid/\n")
    (root / "README").write_text("a checkout\n")
    commit_all(root, "start")
    return root


def _write_random_home(home: Path, profile: Path, shared: Path) -> Path:
    """Write `anchored` (no IMR yet), `models/adapter` and `params.yaml` into `home` and return it."""
    models = save_random_models(home / "base")
    base = load_base(models.pipeline, models.image_encoder)
    reference = base.reference(str(models.pipeline), str(models.image_encoder))
    random_adapter(base, imr=False).save(home / "anchored", reference)
    random_adapter(base).save(home / "models" / "adapter", reference)
    tree = yaml.safe_load(profile.read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    tree["preprocess"] |= {
        "insightface_name": "buffalo_real_mini",
        "insightface_root": str(shared / "weights" / "insightface"),
        "landmarker": slim_landmarker(shared),
        "captions": {"sources": ["sidecar"]},
    }
    # The shipped adapter fits only the shipped base.
    tree["evaluate"] |= {"steps": 2, "shipped_adapter": None}
    tree["serve"]["steps"] = 2
    # A quantised network passes no gradients.
    tree["train_anchoring"]["identity"]["weight"] = 0.0
    (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return home


@pytest.fixture(scope="session")
def random_home(project: Path, shared: Path) -> Callable[[Path], Path]:
    """Fill a given folder, see `_write_random_home`."""
    return lambda home: _write_random_home(home, project / "profiles" / "tiny.yaml", shared)

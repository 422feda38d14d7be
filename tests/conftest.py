"""Shared fixtures: real photos and networks where they are present, drawn people and shipped networks anywhere."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--golden DIR`: another folder of exact vectors, in place of ../shared/golden."""
    parser.addoption("--golden", metavar="DIR", default=None, help="folder of vectors for test_golden.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `realdata` where the folder ../shared is absent, and `gpu` where there is no CUDA device.

    Those marked `stack` are left out unless they are asked for: `make e2e`.
    """
    if "stack" not in (config.getoption("-m") or ""):
        left_out = [item for item in items if item.get_closest_marker("stack")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("stack")]
    cuda: bool | None = None
    for item in items:
        elsewhere = item.config.getoption("--golden") and "golden" in getattr(item, "fixturenames", ())
        if item.get_closest_marker("realdata") and not SHARED.is_dir() and not elsewhere:
            item.add_marker(pytest.mark.skip(reason="../shared is absent: no real photos and networks here"))
        if item.get_closest_marker("gpu"):
            if cuda is None:
                import torch

                cuda = torch.cuda.is_available()
            if not cuda:
                item.add_marker(pytest.mark.skip(reason="no GPU: no CUDA device here"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and small real networks."""
    return SHARED


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout under test."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of two people whom nobody knows, a JPEG and a PNG."""
    import numpy as np
    from PIL import Image

    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person
    from pipelines.data.synthetic.scene import Scene

    folder = tmp_path_factory.mktemp("drawn_people")
    files = [folder / "first.jpg", folder / "second.png"]
    for index, file in enumerate(files):
        scene = Scene.sample(np.random.default_rng(index), "neutral", "front")
        Image.fromarray(render(Person.sample("tests", 0, index), scene, 256).image).save(file)
    return files


@pytest.fixture(scope="session")
def with_shipped_networks(project: Path) -> Callable[[Path], Path]:
    """Have `params.yaml` of a folder name the face networks that the project ships; return the folder."""
    import yaml

    def change(home: Path) -> Path:
        shipped = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text("utf-8"))
        tree = yaml.safe_load((home / "params.yaml").read_text("utf-8"))
        tree["preprocess"] = shipped["preprocess"]
        (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        return home

    return change


@pytest.fixture(scope="session")
def checkout(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout of the working tree as it is, with a git history of its own and no data, for whole runs."""
    folder = tmp_path_factory.mktemp("checkout") / "dynamicid"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=project, check=True, capture_output=True
    ).stdout
    for name in listed.decode().split("\0"):
        # A demo that ran here before leaves a dataset version: that belongs to this checkout, not to a fresh one.
        if name.startswith("data/") or name == "dvc.lock":
            continue
        if name and (project / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / name, folder / name)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "A checkout under test"]):
        subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *command], cwd=folder, check=True
        )
    return folder

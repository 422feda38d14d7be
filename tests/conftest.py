"""Shared fixtures: drawn people and shipped networks; real photos and networks where they are present."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.processes import commit_all, git

# Each process has one core. With one thread, sums are also the same in every process, to the last bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return `once(name, fill)`: a folder that `fill` fills once a run, in whichever process of it asks first.

    All processes share the folder, so nobody changes what is in it: a test that must, copies it.
    """
    base = tmp_path_factory.getbasetemp()
    shared_by_all = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared_by_all / "once" / name
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):
            filled = folder.with_name(f".{name}.filled")
            if not filled.exists():
                fill(folder)
                filled.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of two people whom nobody knows, a JPEG and a PNG."""
    from PIL import Image

    from pipelines.data.synthetic.sheet import portrait

    folder = tmp_path_factory.mktemp("drawn_people")
    files = [folder / "first.jpg", folder / "second.png"]
    for index, file in enumerate(files):
        Image.fromarray(portrait("tests", index, 256)).save(file)
    return files


@pytest.fixture(scope="session")
def with_shipped_networks(project: Path) -> Callable[[Path], Path]:
    """Have `params.yaml` of a folder name the face networks that the project ships; return the folder."""
    from pipelines.core.documents import read_yaml
    from pipelines.core.params import dump_params

    def change(home: Path) -> Path:
        tree = read_yaml(home / "params.yaml")
        tree["preprocess"] = read_yaml(project / "profiles" / "tiny.yaml")["preprocess"]
        dump_params(tree, home / "params.yaml")
        return home

    return change


@pytest.fixture(scope="session")
def checkout(project: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A fresh checkout of the working tree as it is, with a git history of its own and no data (see `once`)."""

    def fill(folder: Path) -> None:
        for name in git(project, "ls-files", "-co", "--exclude-standard", "-z").split("\0"):
            # Not the dataset version that a demo may have left here: a fresh checkout has none.
            if name and not name.startswith("data/") and name != "dvc.lock" and (project / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, folder / name)
        commit_all(folder, "A checkout under test")

    return once("checkout", fill)

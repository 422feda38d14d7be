"""The wheel has every file that the code needs; installed, it renders a person from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOMS = ("pipelines", "model")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built with the environment's own setuptools."""
    source, out = tmp_path_factory.mktemp("source") / "dynamicid", tmp_path_factory.mktemp("wheel")
    shutil.copytree(checkout, source, ignore=shutil.ignore_patterns(".git"))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--quiet", "--no-deps", "--no-build-isolation", "-w", out]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(out.glob("dynamicid-*.whl"))


def test_it_holds_every_file_of_the_code_and_nothing_else(wheel: Path, checkout: Path) -> None:
    known = subprocess.run(["git", "ls-files", *ROOMS], cwd=checkout, check=True, capture_output=True, text=True)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == set(known.stdout.splitlines())


@pytest.mark.nightly
def test_it_draws_somebody_from_an_empty_folder(
    wheel: Path, checkout: Path, drawn_people: list[Path], tmp_path: Path
) -> None:
    place, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
    # Libraries come from this environment, the project's code only from the wheel.
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DYNAMICID"))}

    def dynamicid(*arguments: str | Path) -> str:
        command = [place / "bin" / "dynamicid", *arguments]
        done = subprocess.run(command, cwd=empty, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "generate" in dynamicid("--help")
    request = ("--reference", drawn_people[0], "--prompt", "a photo of a person", "--face-prompt", "happy")
    dynamicid("generate", *request, "--params", checkout / "params.yaml", "--steps", "2", "--out", "drawn.png")
    assert (empty / "drawn.png").is_file()

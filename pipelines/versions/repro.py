"""Runs stages through DVC, one at a time, with the environment's own Python first on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipelines.core.chain import stage_names
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.versions.git import git_environment


def stage_environment() -> dict[str, str]:
    """Return the environment in which DVC runs a stage: `python` is this interpreter, telemetry is off."""
    bin_folder = str(Path(sys.executable).parent)
    return {**git_environment(), **TELEMETRY_OFF, "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")])}


def dvc(root: Path, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `dvc …` in `root` with this interpreter; output goes to stderr unless captured."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=stage_environment(),
        text=True,
        check=False,
        stdout=subprocess.PIPE if capture else sys.stderr,
        stderr=subprocess.PIPE if capture else None,
    )


def check_stages(names: list[str]) -> list[str]:
    """Return `names`, or every stage when there are none; raise UserError on a name that is no stage."""
    known = stage_names()
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such stage; there are {', '.join(known)}")
    return names or list(known)


def repro_stage(root: Path, name: str, *, force: bool = False, pull: bool = False) -> None:
    """Bring one stage up to date; raise StageFailed where DVC or the stage fails."""
    flags = [flag for flag, on in (("--force", force), ("--pull", pull)) if on]
    done = dvc(root, "repro", "--single-item", *flags, name)
    if done.returncode:
        raise StageFailed(f"stage {name} failed under DVC (exit {done.returncode}); the reason is above")

"""How many cores are used, and how threads wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.processors import SHORT_SPIN, cores, environment_of

_USED = """
import json, cv2, torch
from model.processors import use_threads
use_threads()
print(json.dumps([torch.get_num_threads(), cv2.getNumThreads()]))
"""


def used(project: Path, **environment: str) -> list[int]:
    """Return the threads of torch and OpenCV in a process that has four cores."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", _USED],
        env={**kept, "PYTHONPATH": str(project), "LOKY_MAX_CPU_COUNT": "4", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[int] = json.loads(done.stdout)
    return found


def test_a_process_has_its_share_of_the_cores_and_the_user_decides(project: Path) -> None:
    usable = min(4, cores())
    assert used(project) == [usable, usable]
    assert used(project, LOCAL_WORLD_SIZE="2") == [max(1, usable // 2)] * 2
    assert used(project, OMP_NUM_THREADS="1")[0] == 1


def test_the_affinity_of_a_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from joblib.externals.loky.backend import context

    asked = context.open if hasattr(context, "open") else open
    (tmp_path / "cpu.max").write_text("100000 100000\n")

    def opened(name: str, *rest: object) -> object:
        return asked(tmp_path / "cpu.max" if name == "/sys/fs/cgroup/cpu.max" else name, *rest)  # type: ignore[operator]

    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda name: name == "/sys/fs/cgroup/cpu.max" or exists(name))
    monkeypatch.setattr(context, "open", opened, raising=False)
    assert cores() == 1


def test_a_process_of_one_thread_has_one_in_every_library(project: Path) -> None:
    assert used(project, **environment_of(1)) == [1, 1]


def test_every_command_lets_threads_sleep_while_they_wait(project: Path) -> None:
    """Also torch's, which reads it when it is imported."""
    code = "import os, pipelines.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nprint(os.environ)"
    kept = {name: value for name, value in os.environ.items() if name not in SHORT_SPIN}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(f"'{name}': '{value}'" in done.stdout for name, value in SHORT_SPIN.items())

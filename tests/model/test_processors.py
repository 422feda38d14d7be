"""How many cores are used, and how threads wait."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model import processors
from model.processors import cores, environment_of, waiting

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


def _running(monkeypatch: pytest.MonkeyPatch, file: Path, threads: int) -> str:
    """Return how threads wait on a machine of four processors on which so many threads of others run."""
    file.write_text(f"0.10 0.10 0.10 {threads + 1}/200 4711\n")
    monkeypatch.setattr(processors, "_RUNNING", file)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    return waiting()["GOMP_SPINCOUNT"]


def test_threads_wait_more_shortly_where_others_need_their_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "loadavg"
    monkeypatch.setattr(processors, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert int(_running(monkeypatch, file, 0)) > int(_running(monkeypatch, file, 1))
    for given, others, shared in (("3", 1, False), ("3", 2, True), ("three", 0, False), ("three", 1, True)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert (_running(monkeypatch, file, others) != _running(monkeypatch, file, 0)) is shared, (given, others)
    file.unlink()
    assert _running(monkeypatch, tmp_path / "loadavg", 0) == waiting()["GOMP_SPINCOUNT"]


def test_processes_of_one_training_do_not_count_as_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processors, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    alone, beside = (_running(monkeypatch, tmp_path / "loadavg", others) for others in (3, 4))
    assert alone != beside


def test_threads_are_set_in_one_place(project: Path) -> None:
    called = re.compile(r"set_num(_interop)?_threads\(|setNumThreads\(|(intra|inter)_op_num_threads|KMP_|OMP_WAIT")
    files = [file for room in ("model", "pipelines", "dags") for file in (project / room).rglob("*.py")]
    found = [file.relative_to(project).as_posix() for file in files if called.search(file.read_text())]
    assert sorted(found) == ["model/processors.py", "pipelines/data/curation/neighbourhood.py"], "faiss, for one call"


@pytest.mark.parametrize("given", [None, "77"])
def test_every_command_lets_threads_sleep_while_they_wait(project: Path, given: str | None) -> None:
    """Also torch's, which reads it when it is imported; a user's own setting stays."""
    code = "import os, pipelines.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(os.environ['GOMP_SPINCOUNT'])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GOMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(project), **({} if given is None else {"GOMP_SPINCOUNT": given})},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] in (("0", "6000") if given is None else (given,))

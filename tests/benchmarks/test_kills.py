"""Commands that are killed and started again leave what they leave without a kill (benchmarks/kills.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.kill_results import differences, digests, half_files, locks_left, names
from benchmarks.kill_scenarios import SCENARIOS
from benchmarks.kill_trials import Reference, Trial, append_row, earlier_rows, moment_of
from tests.processes import git

# A command of the checks: a file is written beside its name, synced, renamed, and another one is opened and cut.
COMMAND = """
import os, subprocess, sys
with open(".one.part", "w") as part:
    part.write("whole")
    part.flush()
    os.fsync(part.fileno())
os.replace(".one.part", "one")
subprocess.run(["git", "tag", "mark"], check=True)
with open("two", "w") as file:
    file.write("whole")
"""
PROGRAM = """
import sys
from pathlib import Path
from benchmarks import kill_process
state, call = Path(sys.argv[1]), int(sys.argv[2])
kill_process._import_libraries = lambda: None
kill_process.begin(state, {})
def command(arguments):
    exec(COMMAND)
    return 0
kill_process.call_command = command
moment = kill_process.Moment(call=call or None)
ended = kill_process.run_command([], state / "at", state / "at", state / "log", moment)
print(ended.code, ended.calls, ended.last_call.split()[0] if ended.last_call else "")
"""


def kill_at(state: Path, call: int) -> tuple[list[str], list[str]]:
    """Kill the command at a call (0: never); return what was printed, and the names of the files that are left."""
    at = state / "at"
    at.mkdir(parents=True)
    git(at, "init", "-q")
    git(at, "commit", "-q", "--allow-empty", "-m", "start")
    program = PROGRAM.replace("COMMAND", repr(COMMAND))
    file = state / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file), str(state), str(call)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    return done.stdout.split(), sorted(path.name for path in at.iterdir() if path.name != ".git")


def test_every_call_that_changes_files_is_a_moment(tmp_path: Path) -> None:
    if subprocess.run(["cc", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no C compiler")
    (code, calls, _), left = kill_at(tmp_path / "whole", 0)
    assert (code, left) == ("0", ["one", "two"])
    assert int(calls) >= 5  # open, fsync, rename, those of git, open
    reached = {}
    for call in range(1, int(calls) + 1):
        (code, _, last), left = kill_at(tmp_path / str(call), call)
        assert code == "-9"
        reached.setdefault(last, []).append(left)
    assert reached["fsync"][0] == [".one.part"]
    assert [".one.part"] in [left for call, lefts in reached.items() if call.startswith("rename") for left in lefts]
    locked = [number for number in range(1, int(calls) + 1) if list((tmp_path / f"{number}/at/.git").rglob("*.lock"))]
    assert locked, "git was killed while it held a lock"
    two = [tmp_path / str(number) / "at" / "two" for number in range(1, int(calls) + 1)]
    assert [file.read_text() for file in two if file.exists()] == [""], "killed after opening and before writing"


def test_a_result_is_as_before_or_as_after_or_absent(tmp_path: Path) -> None:
    file, folder = tmp_path / "figures.json", tmp_path / "model"
    folder.mkdir()
    units = ("figures.json", "model", "rows/**")
    (folder / "one").write_text("old")
    before = digests(tmp_path, units)
    (folder / "one").write_text("new")
    file.write_text("new")
    made = SimpleNamespace(before=before, after={"files": digests(tmp_path, units)})
    assert half_files(tmp_path, units, made) == []
    file.write_text("")
    (folder / "two").write_text("new")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / ".part-0.part").write_text("ha")
    (tmp_path / "rows" / "part-1").write_text("ha")
    assert half_files(tmp_path, units, made) == ["figures.json", "model", "rows/part-1"]
    file.unlink()
    assert half_files(tmp_path, ("figures.json",), made) == []


def test_leftovers_locks_and_other_values_are_listed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "runs" / "3f2a9c81").mkdir(parents=True)
    (tmp_path / "runs" / "3f2a9c81" / "figures.json").touch()
    (tmp_path / "runs" / "20261130T045141.062811Z").mkdir()
    (tmp_path / "runs" / "20261130T045141.062811Z" / "page.html").touch()
    expected = names(tmp_path)
    assert expected == ["runs/*/figures.json", "runs/*/page.html"]
    (tmp_path / "runs" / ".figures.json.part").touch()
    assert differences({"names": expected}, {"names": names(tmp_path)}) == [
        "/names: left over ['runs/.figures.json.part']"
    ]
    assert differences({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}) == ["/a/b: 2 instead of 1", "/a/c: 3 instead of None"]
    assert locks_left(tmp_path) == []
    (tmp_path / ".git" / "refs" / "tags" / "v.lock").touch()
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text("")
    assert locks_left(tmp_path) == [".git/refs/tags/v.lock", ".dvc/tmp/rwlock is not JSON"]


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "kills.jsonl"
    row = Trial("ingest", 0, "code", "time", "ingest", 1.5, "", "", 2.0)
    append_row(file, row)
    with file.open("a") as stream:
        stream.write('{"command": "ingest", "number": 1, "co')  # the benchmark was killed here
    append_row(file, Trial(**{**vars(row), "number": 2, "code": "other"}))
    assert list(earlier_rows(file, "code")) == [("ingest", 0)]
    assert list(earlier_rows(file, None)) == [("ingest", 0), ("ingest", 2)]
    assert len(json.loads(file.read_text().splitlines()[0])) == len(vars(row))


def test_moments_cover_every_command_of_a_scenario_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    inbox = next(scenario for scenario in SCENARIOS if scenario.name == "inbox")
    made = Reference({}, {}, [1.0, 2.0, 3.0, 2.0, 1.0], [10, 20, 5, 30, 7])
    moments = [moment_of(inbox, made, number) for number in range(100)]
    assert moments == [moment_of(inbox, made, number) for number in range(100)]
    assert {step for step, moment in moments if moment.call} == set(range(5))
    assert {step for step, moment in moments if moment.after is not None} == set(range(5))
    assert all(1 <= moment.call <= made.calls[step] for step, moment in moments if moment.call)
    assert all(0 <= moment.after <= made.seconds[step] for step, moment in moments if moment.after is not None)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_every_command_survives_three_kills(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(project / "benchmarks" / "kills.py"), "--state", str(tmp_path), "--kills", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-5000:]

"""Run every command with a full disk, read-only folders, few open files, little memory, and a clock set back.

A command may fail with a fault, with one line that says why. Every result is then as before the command or as after it,
and once the fault is gone, the same command ends as it does without one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill_results import differences, half_files, locks_left
from benchmarks.kill_scenarios import Place, Scenario, copy_folder, make_states
from benchmarks.kill_trials import Reference, append_row, code_version, earlier_rows, plain, reference, run_step

_YEAR = 365 * 24 * 3600.0
# Free kilobytes of the full disk, megabytes of memory above those of a process that has imported the libraries.
_ROOMS = (16, 256, 2048, 8192)
_MEMORY = (64, 512)
_FOLDERS = ("home/data", "home/models", "home/reports", "home/.dvc", "home/.dynamicid", "home/.git", "remote", "inbox")


@dataclass(frozen=True)
class Fault:
    """A fault: `begin` makes it in a folder that is loaded, `end` undoes it, `in_child` applies to the command alone.

    `own_disk`: the folder is a file system of its own. `must_pass`: the command has to succeed in spite of it.
    `one_line`: a failure has to be reported in one line.
    """

    name: str
    begin: Callable[[Path], None] = lambda at: None
    end: Callable[[Path], None] = lambda at: None
    in_child: Callable[[], None] | None = None
    own_disk: bool = False
    must_pass: bool = False
    one_line: bool = True


@dataclass(frozen=True)
class FaultRow:
    """The result of a command with a fault: how it `ended`, and what was wrong (empty: nothing)."""

    command: str
    number: str
    code: str
    ended: str
    problem: str


def faults() -> list[Fault]:
    """Return the faults that can be made here; print which cannot."""
    made = [
        Fault("64 open files", in_child=_limit(resource.RLIMIT_NOFILE, lambda: 64)),
        *(
            Fault(f"{room} MB of memory", in_child=_limit(resource.RLIMIT_AS, _memory(room)), one_line=False)
            for room in _MEMORY
        ),
        Fault("clock set back a year", begin=_age, must_pass=True),
    ]
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        print("left out: full disk and read-only folders need the right to mount file systems", file=sys.stderr)
        return made
    made += [Fault(f"{room} kB of disk", _fill(room), _resize("4g"), own_disk=True) for room in _ROOMS]
    return made + [Fault(f"read-only {name}", _read_only(name), _writable(name)) for name in _FOLDERS]


def release_mounts(state: Path) -> None:
    """Unmount what a killed run of this program left mounted below its state folder, the innermost first."""
    mounted = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for folder in sorted((path for path in mounted if state in path.parents), reverse=True):
        subprocess.run(["umount", str(folder)], check=True)


def fault_commands(place: Place, wanted: list[Scenario], *, any_code: bool = False) -> list[dict[str, Any]]:
    """Run each command with each fault, where this code has not been tried yet; return all rows."""
    code, file = code_version(), place.state / "faults.jsonl"
    make_states(place, "" if any_code else code)
    rows: dict[tuple[str, Any], dict[str, Any]] = {**earlier_rows(file, None if any_code else code)}
    for scenario in wanted:
        for fault in faults():
            if (scenario.name, fault.name) not in rows:
                row = _try(place, scenario, fault, reference(place, scenario, code), code)
                append_row(file, row)
                rows[scenario.name, fault.name] = asdict(row)
                print(f"{row.command}, {row.number}: {row.ended}; {row.problem or 'good'}", file=sys.stderr, flush=True)
    return list(rows.values())


def _try(place: Place, scenario: Scenario, fault: Fault, made: Reference, code: str) -> FaultRow:
    place.empty()
    problems = []
    with _disk(place.at) if fault.own_disk else contextlib.nullcontext():
        place.load(scenario.given)
        left: tuple[tuple[str, ...], ...] = ()
        fault.begin(place.at)
        try:
            for done, arguments in enumerate(scenario.commands):
                ended = run_step(place, arguments, prepare=fault.in_child)
                if ended.code:
                    left = scenario.commands[done:]
                    break
        finally:
            fault.end(place.at)
        problems += [f"half a result: {unit}" for unit in half_files(place.at, scenario.units, made)]
        if ended.code and fault.must_pass:
            problems.append(f"failed: {ended.last_line}")
        if ended.code and fault.one_line and "Traceback (most recent call last)" in ended.output:
            problems.append(f"a traceback: {ended.last_line}")
        for arguments in left:
            again = run_step(place, arguments)
            if again.code and not (scenario.accepted and scenario.accepted in again.output):
                problems.append(f"started again: exit {again.code}: {again.last_line}")
                break
        problems += differences(made.after, plain(scenario.result(place)))
        problems += [f"locked: {lock}" for lock in locks_left(place.home)]
        if problems:
            copy_folder(place.at, place.state / "failed" / f"{scenario.name} {fault.name}".replace("/", "_"))
    how = "succeeded" if ended.code == 0 else f"exit {ended.code}: {ended.last_line[:200]}"
    return FaultRow(scenario.name, fault.name, code, how, "; ".join(problems))


def fault_table(rows: list[dict[str, Any]]) -> str:
    """Return a table: fault × command; `passed`, `refused` (failed, and nothing was lost) or `FAILED`."""
    commands = list(dict.fromkeys(row["command"] for row in rows))
    cells = {(row["number"], row["command"]): row for row in rows}
    lines = [f"| fault | {' | '.join(commands)} |", f"|---|{'---|' * len(commands)}"]
    for name in dict.fromkeys(row["number"] for row in rows):
        words = [_word(cells.get((name, command))) for command in commands]
        lines.append(f"| {name} | {' | '.join(words)} |")
    return "\n".join(lines)


def _word(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return "FAILED" if row["problem"] else "passed" if row["ended"] == "succeeded" else "refused"


@contextlib.contextmanager
def _disk(at: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", "size=4g", "none", str(at))
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _fill(kilobytes: int) -> Callable[[Path], None]:
    def fill(at: Path) -> None:
        used = os.statvfs(at)
        _resize((used.f_blocks - used.f_bfree) * used.f_frsize + kilobytes * 1024)(at)

    return fill


def _resize(size: int | str) -> Callable[[Path], None]:
    return lambda at: _mount("-o", f"remount,size={size}", str(at))


def _read_only(name: str) -> Callable[[Path], None]:
    def bind(at: Path) -> None:
        if (folder := at / name).is_dir():
            _mount("--bind", str(folder), str(folder))
            _mount("-o", "remount,ro,bind", str(folder))

    return bind


def _writable(name: str) -> Callable[[Path], None]:
    def release(at: Path) -> None:
        if (at / name).is_dir():
            subprocess.run(["umount", str(at / name)], check=True)

    return release


def _age(at: Path) -> None:
    """Date every file a year ahead, as after the clock was set back."""
    then = time.time() + _YEAR
    for file in at.rglob("*"):
        os.utime(file, (then, then), follow_symlinks=False)


def _memory(megabytes: int) -> Callable[[], int]:
    def most() -> int:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        return pages * resource.getpagesize() + megabytes * 2**20

    return most


def _limit(kind: int, most: Callable[[], int]) -> Callable[[], None]:
    def apply() -> None:
        resource.setrlimit(kind, (most(), most()))

    return apply

"""One trial: a command is killed, its results are checked, it is started again, and the end is compared.

Rows of trials are lines of a file, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill_process import NEVER, Ended, Moment, counts_calls, run_command
from benchmarks.kill_results import State, differences, digests, half_files, locks_left
from benchmarks.kill_scenarios import Place, Scenario, copy_folder, make_states
from benchmarks.real_networks import PROJECT

_KEPT = 3


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run of a scenario: what was there before and after it, and seconds and calls of each command."""

    before: dict[str, str]
    after: State
    seconds: list[float]
    calls: list[int]


@dataclass(frozen=True)
class Trial:
    """The result of one kill: the moment, what failed (empty: nothing), and the seconds that the kill cost."""

    command: str
    number: int
    code: str
    kind: str
    step: str
    moment: float
    last_call: str
    problem: str
    seconds_lost: float


def code_version() -> str:
    """Return a hash of the code under test: the working tree of `pipelines` and `model`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", "pipelines", "model", "params.yaml", "dvc.yaml"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.split("\0"))):
        if (PROJECT / name).is_file():
            digest.update(name.encode() + (PROJECT / name).read_bytes())
    return digest.hexdigest()[:12]


def run_step(place: Place, arguments: tuple[str, ...], moment: Moment = NEVER, **more: Any) -> Ended:
    """Run one command of a scenario in the checkout."""
    log = place.state / "log"
    return run_command(arguments, place.home, place.at, log, moment, environment=place.environment(), **more)


def reference(place: Place, scenario: Scenario, code: str) -> Reference:
    """Return the uninterrupted run of a scenario, from the state folder where this code has made it before."""
    file = place.state / "reference" / f"{scenario.name}.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.pop("code") == code:
            return Reference(**kept)
    place.load(scenario.given)
    before = digests(place.at, scenario.units)
    ended = []
    for arguments in scenario.commands:
        ended.append(run_step(place, arguments))
        if ended[-1].code:
            what = f"dynamicid {' '.join(arguments)}: exit {ended[-1].code} without a kill: {ended[-1].last_line}"
            raise RuntimeError(what)
    seconds, calls = [one.seconds for one in ended], [one.calls for one in ended]
    made = Reference(before, scenario.result(place), seconds, calls)
    if left := locks_left(place.home):
        raise RuntimeError(f"{scenario.name}: locks left without a kill: {left}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"code": code, **asdict(made)}), encoding="utf-8")
    return Reference(**plain(asdict(made)))


def plain(state: State) -> State:
    """Return a state as JSON would give it back, so that tuples and lists compare equal."""
    return dict(json.loads(json.dumps(state)))


def moment_of(scenario: Scenario, made: Reference, number: int) -> tuple[int, Moment]:
    """Return which command of the scenario trial `number` kills, and when; the same number gives the same moment."""
    draw = random.Random(f"{scenario.name} {number}")
    by_call = counts_calls() and number % 2 == 1
    shares = made.calls if by_call else made.seconds
    at = draw.uniform(0, sum(shares))
    for step, share in enumerate(shares):
        if at < share or step == len(shares) - 1:
            return step, Moment(call=min(int(at) + 1, int(share))) if by_call else Moment(after=at)
        at -= share
    raise AssertionError


def kill_once(place: Place, scenario: Scenario, made: Reference, number: int, code: str) -> Trial:
    """Make one trial: the commands before, the kill, the checks, the commands again, the comparison."""
    step, moment = moment_of(scenario, made, number)
    while True:
        place.load(scenario.given)
        for arguments in scenario.commands[:step]:
            run_step(place, arguments)
        killed = run_step(place, scenario.commands[step], moment)
        if killed.killed or killed.code:
            break
        moment = moment.halved()  # the command was faster than without a kill, and ended before
    problems = []
    if not killed.killed:
        problems.append(f"ended with {killed.code} before the kill: {killed.last_line}")
    if half := half_files(place.at, scenario.units, made):
        problems.append(f"half a result after the kill: {half}")
    seconds = killed.seconds
    for arguments in scenario.commands[step:]:
        again = run_step(place, arguments)
        seconds += again.seconds
        if again.code and not (scenario.accepted and scenario.accepted in again.output):
            problems.append(f"started again: exit {again.code}: {again.last_line}")
            break
    problems += differences(made.after, plain(scenario.result(place)))
    problems += [f"locked: {lock}" for lock in locks_left(place.home)]
    return Trial(
        command=scenario.name,
        number=number,
        code=code,
        kind="call" if moment.call else "time",
        step=scenario.commands[step][0] if len(scenario.commands) == 1 else " ".join(scenario.commands[step][:2]),
        moment=round(moment.call or moment.after or 0.0, 3),
        last_call=killed.last_call.replace(str(place.state), "") if moment.call else "",
        problem="; ".join(problems),
        seconds_lost=round(max(0.0, seconds - sum(made.seconds[step:])), 2),
    )


def earlier_rows(file: Path, code: str | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the latest row of each trial; with `code` only rows of that code. A cut last line is left out."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if code is None or row["code"] == code:
                rows[row["command"], row["number"]] = row
    return rows


def append_row(file: Path, row: Any) -> None:
    """Add a line to a file of rows; a line that an earlier process left unfinished is ended first."""
    cut = file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * cut + json.dumps(row if isinstance(row, dict) else asdict(row)) + "\n")


def kill_commands(place: Place, wanted: list[Scenario], kills: int, *, any_code: bool = False) -> list[dict[str, Any]]:
    """Make the trials that are missing, round by round over the commands; return the rows of all."""
    code = code_version()
    make_states(place, "" if any_code else code)
    file = place.state / "kills.jsonl"
    made = earlier_rows(file, None if any_code else code)
    rows = {key: row for key, row in made.items() if row["kind"] != "none"}
    failed = {scenario.name: 0 for scenario in wanted}
    references: dict[str, Reference] = {}
    without: set[str] = set()
    for number in range(kills):
        for scenario in wanted:
            if (scenario.name, number) in rows or scenario.name in without:
                continue
            try:
                if scenario.name not in references:
                    references[scenario.name] = reference(place, scenario, code)
                trial = kill_once(place, scenario, references[scenario.name], number, code)
            except (RuntimeError, TimeoutError) as error:
                trial = Trial(scenario.name, number, code, "none", "", 0.0, "", f"no trial: {error}"[:2000], 0.0)
                without.add(scenario.name)
            append_row(file, trial)
            rows[scenario.name, number] = asdict(trial)
            what = f"{scenario.name} {number} {trial.kind} {trial.moment}"
            print(f"{what}: {trial.problem or 'survived'}", file=sys.stderr, flush=True)
            if trial.problem:
                failed[scenario.name] += 1
                if failed[scenario.name] <= _KEPT:
                    copy_folder(place.at, place.state / "failed" / f"{scenario.name}-{number}")
    names = {scenario.name for scenario in wanted}
    return [row for (name, number), row in rows.items() if name in names and number < kills]

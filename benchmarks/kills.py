"""Kill every command at many moments, start it again, and compare what it leaves with what it leaves without a kill.

    python benchmarks/kills.py --state DIR                     # 100 kills of each command: hours
    python benchmarks/kills.py --state DIR --kills 3 forget inbox
    python benchmarks/kills.py --state DIR --faults            # full disk, read-only folders, limits, clock set back

Half of the moments are uniform over the time that a command takes. The others are calls that change files below the
checkout, drawn from all such calls of an uninterrupted run (kill_calls.c): there, a file is often half written or not
yet renamed. SIGKILL ends the whole process tree. After a kill, every result must be as before the command or as after
it. When the command was started again, files, dataset versions and registry must be as without a kill, and no lock and
no unfinished file may be left.

A run goes on where it was stopped: each trial is a line of `kills.jsonl` in DIR. Trials of other code than the present
one are repeated. Exits 1 where a trial failed. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kill_faults import fault_commands, fault_table, release_mounts
from benchmarks.kill_process import begin
from benchmarks.kill_scenarios import SCENARIOS, Place, Scenario
from benchmarks.kill_trials import kill_commands


def table(rows: list[dict[str, Any]], wanted: list[Scenario]) -> str:
    """Return a table: command, kills survived (at calls, at times), seconds lost."""
    lines = ["| command | survived | at calls | at times | seconds lost: median | worst |", "|---|---|---|---|---|---|"]
    for scenario in wanted:
        own = [row for row in rows if row["command"] == scenario.name]
        if not own:
            continue
        counts = [f"{sum(not row['problem'] for row in part)}/{len(part)}" for part in (own, *_by_kind(own))]
        lost = [row["seconds_lost"] for row in own]
        lines.append(f"| {scenario.name} | {' | '.join(counts)} | {statistics.median(lost):.1f} | {max(lost):.1f} |")
    return "\n".join(lines)


def _by_kind(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [[row for row in rows if row["kind"] == kind] for kind in ("call", "time")]


def chosen(given: list[str]) -> list[Scenario]:
    """Return the scenarios of these names, or all."""
    return [scenario for scenario in SCENARIOS if not given or scenario.name in given]


def check_commands(given: list[str]) -> None:
    """Raise SystemExit where there is no scenario of a name."""
    names = [scenario.name for scenario in SCENARIOS]
    if unknown := sorted(set(given) - set(names)):
        raise SystemExit(f"{', '.join(unknown)}: no such command here; there are {', '.join(names)}")


def main() -> int:
    """Make the trials and print the table; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="default: all")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder of results and checkouts; a run goes on there"
    )
    parser.add_argument("--kills", type=int, default=100, help="kills of each command")
    parser.add_argument("--any-code", action="store_true", help="keep states and trials of earlier code")
    parser.add_argument(
        "--faults", action="store_true", help="faults of disk, files, limits and clock instead of kills"
    )
    given = parser.parse_args()
    check_commands(given.commands)
    place = Place(given.state.resolve())
    begin(place.state, place.environment())
    release_mounts(place.state)
    if given.faults:
        rows = fault_commands(place, chosen(given.commands), any_code=given.any_code)
        print(fault_table(rows))
    else:
        rows = kill_commands(place, chosen(given.commands), given.kills, any_code=given.any_code)
        print(table(rows, chosen(given.commands)))
    failed = [row for row in rows if row["problem"]]
    for row in failed:
        print(f"failed: {json.dumps(row)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Hand damaged files in at three doors: `dynamicid ingest`, the served model and its files, and the page.

    python benchmarks/damaged_files.py --count 1000 --log damaged.jsonl     # again: goes on where it ended
    python benchmarks/damaged_files.py --door ingest --number 17            # one case again, with its reason

Every case is made from the seed and its number (`damage.py`). Exit 1 where a door answered with a traceback or not
within two minutes, kept the processor busy for more than 10 s, grew by more than 1 GB, ended, or touched rows of other
files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.damage import MODEL, Case, damaged, face, good
from benchmarks.damage_doors import FAULTS, FORMATS, PROJECT, Measured, Worker, to_page, to_served_model

# Bounds on the time of the processor, which other programs of a machine do not lengthen, and on memory.
_SECONDS, _MEMORY_MB = 10.0, 1024.0
# Cases that once found a fault, by door; the tests always run them. Seed 0.
KEPT: dict[str, tuple[int, ...]] = {"ingest": (), "served model": (), "page": ()}
Send = Callable[[Case], Measured]


@contextlib.contextmanager
def opened(door: str, home: Path, model: str | None = None, page: str | None = None) -> Iterator[Send]:
    """Yield how cases are handed in at a door; servers are started unless `model` and `page`, addresses, are given."""
    worker = Worker(home, door)
    try:
        if door == "ingest":
            yield worker
        elif door == "served model":
            with _server(home) if model is None else contextlib.nullcontext(model) as url:
                send = to_served_model(url)
                yield lambda case: worker(case) if case.format in MODEL else send(case)
        else:
            with _page(home) if page is None else contextlib.nullcontext(page) as url:
                yield to_page(url)
    finally:
        worker.close()


def _fast_parameters(home: Path) -> Path:
    """Write the tiny profile with two steps a picture, and return the file."""
    from pipelines.core.params import dump_params, read_tree

    tree = read_tree(PROJECT / "profiles" / "tiny.yaml")
    tree["evaluate"]["steps"] = 2
    file = home / "params.yaml"
    dump_params(tree, file)
    return file


@contextlib.contextmanager
def _server(home: Path) -> Iterator[str]:
    import mlflow

    from benchmarks.serving_load import served
    from pipelines.registry.log_model import CODE, signature

    adapter = PROJECT / "model" / "foundation" / "weights" / "adapter"
    artefacts = {"adapter": str(adapter), "params": str(_fast_parameters(home))}
    folder = home / "served"
    if not folder.exists():
        mlflow.pyfunc.save_model(
            str(folder), python_model=str(CODE), artifacts=artefacts, signature=signature(), pip_requirements=[]
        )
    with served(str(folder), cwd=PROJECT) as url:
        yield url


@contextlib.contextmanager
def _page(home: Path) -> Iterator[str]:
    from benchmarks.page_load import served

    adapter = PROJECT / "model" / "foundation" / "weights" / "adapter"
    with served("--adapter", str(adapter), "--params", str(_fast_parameters(home)), home=home) as url:
        yield url


def run(door: str, send: Send, seed: int, numbers: list[int], log: Path | None = None) -> list[dict[str, Any]]:
    """Hand the cases in that `log` does not hold yet; return what is known of all, one entry a case."""
    known: dict[int, dict[str, Any]] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log and log.exists() else ():
        entry = json.loads(line)
        if (entry["door"], entry["seed"]) == (door, seed):
            known[entry["number"]] = entry
    for number in numbers:
        if number in known:
            continue
        case = damaged(seed, number, FORMATS[door])
        found = send(case)
        about = {"door": door, "seed": seed, "number": number, "format": case.format, "damage": case.damage}
        known[number] = {**about, **found._asdict()}
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[number]) + "\n")
    return [known[number] for number in numbers]


def faults(entries: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong, one sentence a case."""
    found = []
    for entry in entries:
        case = f"{entry['door']} {entry['number']} ({entry['format']}, {entry['damage']})"
        if entry["answer"] in FAULTS:
            found.append(f"{case}: {entry['answer']}: {entry['reason']}")
        if entry["cpu_seconds"] > _SECONDS:
            found.append(f"{case}: {entry['cpu_seconds']} s of the processor")
        if entry["memory_mb"] > _MEMORY_MB:
            found.append(f"{case}: {entry['memory_mb']} MB")
    return found


def table(entries: list[dict[str, Any]]) -> str:
    """Return a table in Markdown: counts by door and answer, with the longest time and the largest memory."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        groups[entry["door"], entry["answer"]].append(entry)
    lines = [
        "| door | answer | cases | longest, s | of the processor, s | most memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for (door, answer), group in sorted(groups.items()):
        longest, worked, most = (max(entry[key] for entry in group) for key in ("seconds", "cpu_seconds", "memory_mb"))
        lines.append(f"| {door} | {answer} | {len(group)} | {longest:.1f} | {worked:.1f} | {most:.0f} |")
    return "\n".join(lines)


def still_well(door: str, send: Send) -> bool:
    """Return whether a good file still comes through."""
    formats = {"ingest": "JPEG", "served model": "request", "page": "JPEG"}
    kind = formats[door]
    found = send(Case(kind, "none", face() if kind == "JPEG" else good(kind)))
    return found.answer in ("rows", "answered", "drawn")


def main() -> int:
    """Run and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--door", action="append", choices=list(FORMATS), help="door, repeatable (default: all)")
    parser.add_argument("--count", type=int, default=1000, help="cases a door")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, action="append", help="only these cases, repeatable")
    parser.add_argument("--log", type=Path, help="one line of JSON a case; cases in it are not run again")
    options = parser.parse_args()
    entries: list[dict[str, Any]] = []
    ill = []
    for door in options.door or list(FORMATS):
        numbers = options.number or list(range(options.count))
        with tempfile.TemporaryDirectory() as home, opened(door, Path(home)) as send:
            still_well(door, send)  # the first answer is slower than all others
            entries += run(door, send, options.seed, numbers, options.log)
            ill += [] if still_well(door, send) else [f"{door}: a good file is not answered any more"]
        print(
            f"{door}: {dict(Counter(entry['answer'] for entry in entries if entry['door'] == door))}", file=sys.stderr
        )
    wrong = [*faults(entries), *ill]
    print("\n".join([table(entries), *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a week of new photos costs: each version is preprocessed in a workspace of its own, as runs of Airflow do it.

    python benchmarks/week_two.py --photos 20000 --new 100

Week one has `--photos` procedural photos (variants of 350 drawn ones), week two `--new` more, of new people. Then week
two is preprocessed again, and last of all two further weeks at the same time. The code is that of the last commit. The
last line is JSON: for each run the photos, those that were analysed, buckets written, and seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.preprocess import procedural
from benchmarks.real_networks import PROJECT, dataset_row
from pipelines.data.ingest.shards import ShardWriter
from pipelines.versions.dataset_version import make_version
from pipelines.versions.workspace import create

FACES = "data/faces"
_SHARD_BYTES = 64 * 2**20
_DRAWN = 350


def weeks(photos: int, new: int) -> Iterator[list[tuple[str, str, bytes]]]:
    """Yield name, person and bytes of the photos of four weeks; every new photo is of somebody else."""
    found = procedural(photos + 3 * new, _DRAWN)
    yield list(islice(found, photos))
    for week in (2, 3, 4):
        yield [
            (name, f"week {week} person {number}", data) for number, (name, _, data) in enumerate(islice(found, new))
        ]


def publish(home: Path, photos: list[tuple[str, str, bytes]]) -> None:
    """Add photos to the dataset of the checkout, and commit its next version."""
    writer = ShardWriter(home / FACES, _SHARD_BYTES)
    for name, person, data in photos:
        writer.add(dataset_row(f"{person}/{name}", data, person))
    writer.close()
    make_version(home, FACES, "photos of a week")
    subprocess.run(["git", "add", f"{FACES}.dvc"], cwd=home, check=True)
    subprocess.run(["git", "commit", "-qm", "photos of a week"], cwd=home, check=True)


class Run:
    """A run that preprocesses the newest version in a workspace of its own."""

    def __init__(self, home: Path, name: str, options: list[str]) -> None:
        self.folder = create(home, name).path
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        checkout = [sys.executable, "-m", "dvc", "checkout", "-q", f"{FACES}.dvc"]
        subprocess.run(checkout, cwd=self.folder, env=environment, check=True)
        self._started = time.perf_counter()
        words = ["preprocess", "--set", "preprocess.max_failed_share=1.0", *(w for o in options for w in ("--set", o))]
        command = [sys.executable, "-m", "pipelines.cli", *words]
        self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True)

    def result(self) -> dict[str, float]:
        """Wait for the end of the run; return photos, photos analysed, buckets written, and seconds."""
        printed, _ = self._process.communicate()
        seconds = round(time.perf_counter() - self._started, 1)
        if self._process.returncode:
            raise SystemExit(f"{self.folder}: preprocess ended with {self._process.returncode}")
        report = json.loads(printed)
        return {**{name: report[name] for name in ("rows", "looked_at", "buckets_written")}, "seconds": seconds}


def measure(folder: Path, photos: int, new: int, options: list[str]) -> dict[str, dict[str, float]]:
    """Return the results of all runs by name; everything is written below `folder`."""
    home = folder / "home"
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(home)], check=True)
    subprocess.run(["git", "remote", "remove", "origin"], cwd=home, check=True)
    each = weeks(photos, new)
    results = {}
    for name in ("week one", "week two", "nothing new"):
        if name != "nothing new":
            publish(home, next(each))
        results[name] = Run(home, name, options).result()
    started = {}
    for name in ("week three", "week four"):
        publish(home, next(each))
        started[name] = Run(home, name, options)
    return results | {name: run.result() for name, run in started.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dynamicid-weeks-") as folder:
        print(json.dumps(measure(Path(folder), options.photos, options.new, options.changes)))


if __name__ == "__main__":
    main()

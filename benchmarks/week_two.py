"""What a week of new photos costs: each version is preprocessed in a workspace of its own, as runs of Airflow do it.

    python benchmarks/week_two.py --photos 20000 --new 100 --airflow

Week one has `--photos` procedural photos (variants of 350 drawn ones), week two `--new` more, of new people. Then week
two is preprocessed again, and last of all two further weeks at the same time. The code is that of the last commit. With
`--airflow`, each run is one of the DAG dynamicid_train in an Airflow home of its own, up to the task `preprocess`. The
last line is JSON: for each run the photos, those that were analysed, buckets written, and seconds. Where DVC brings a
result back, nothing is analysed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow.parquet as pq

from benchmarks.preprocess import procedural
from benchmarks.real_networks import PROJECT
from pipelines.core.params import load_params
from pipelines.stages.ingest import Inputs, Outputs
from pipelines.stages.ingest import run as ingest
from pipelines.versions.dataset_version import current_version, make_version
from pipelines.versions.workspace import create

FACES = "data/faces"
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
    with tempfile.TemporaryDirectory() as folder:
        for name, person, data in photos:
            (Path(folder) / person).mkdir(exist_ok=True)
            (Path(folder) / person / name).write_bytes(data)
        ingest(load_params(home / "params.yaml"), Inputs(Path(folder)), Outputs(home / FACES))
    make_version(home, FACES, "photos of a week")
    subprocess.run(["git", "add", f"{FACES}.dvc"], cwd=home, check=True)
    subprocess.run(["git", "commit", "-qm", "photos of a week"], cwd=home, check=True)


# Runs the DAG of a checkout up to a task, with a form, and prints the states of its tasks.
_DAG_RUN = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

dag = DagBag(sys.argv[1]).dags["dynamicid_train"].partial_subset(["preprocess"], include_upstream=True)
for task in dag.task_dict.values():
    task.retries = 0
run = dag.test(run_conf=json.loads(sys.argv[2]))
states = {task.task_id: str(task.state).rsplit(".", 1)[-1].lower() for task in run.get_task_instances()}
sys.exit(0 if set(states.values()) == {"success"} else f"{states}")
"""
_REPORT = re.compile(r'\{"rows": .*"seconds": \{[^}]*\}\}')


class DagRun:
    """A run of dynamicid_train, up to preprocessing, on the newest version."""

    def __init__(self, home: Path, name: str, options: list[str]) -> None:
        self._home, self._rows = home, sum(len(pq.read_table(file)) for file in (home / FACES).glob("*.parquet"))
        self._log = home.parent / f"{name}.log"
        environment = airflow_environment(home)
        # By its name: while the run plans, another week may have been published.
        version = current_version(home).tag
        form = json.dumps({"dataset_version": version, "overrides": ["preprocess.max_failed_share=1.0", *options]})
        self._started = time.perf_counter()
        command = [sys.executable, "-c", _DAG_RUN, str(home / "dags"), form]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def result(self) -> dict[str, float]:
        """Wait for the end of the run; return photos, photos analysed, buckets written, and seconds."""
        code = self._process.wait()
        seconds = round(time.perf_counter() - self._started, 1)
        log = self._log.read_text(encoding="utf-8")
        if code:
            raise SystemExit(f"{self._log}: the run failed: {log[-3000:]}")
        found = _REPORT.search(log)
        report = json.loads(found[0]) if found else {"rows": self._rows, "looked_at": 0, "buckets_written": 0}
        return {**{name: report[name] for name in ("rows", "looked_at", "buckets_written")}, "seconds": seconds}


def airflow_environment(home: Path) -> dict[str, str]:
    """Return the environment of an Airflow with the DAGs of the checkout `home`; its database is made first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "DYNAMICID"))}
    environment = {
        **kept,
        "AIRFLOW_HOME": str(home.parent / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(home), str(home / "dags")]),
        "OMP_NUM_THREADS": "1",
    }
    if not (home.parent / "airflow").is_dir():
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    return environment


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


def measure(
    folder: Path, photos: int, new: int, options: list[str], kind: type[Run] | type[DagRun] = Run
) -> dict[str, dict[str, float]]:
    """Return the results of all runs by name, each one of a `kind`; everything is written below `folder`."""
    home = folder / "home"
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(home)], check=True)
    subprocess.run(["git", "remote", "remove", "origin"], cwd=home, check=True)
    each = weeks(photos, new)
    results = {}
    for name in ("week one", "week two", "nothing new"):
        if name != "nothing new":
            publish(home, next(each))
        results[name] = kind(home, name, options).result()
    started = {}
    for name in ("week three", "week four"):
        publish(home, next(each))
        started[name] = kind(home, name, options)
    return results | {name: run.result() for name, run in started.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--airflow", action="store_true", help="by the DAG dynamicid_train")
    options = parser.parse_args()
    kind = DagRun if options.airflow else Run
    with tempfile.TemporaryDirectory(prefix="dynamicid-weeks-") as folder:
        print(json.dumps(measure(Path(folder), options.photos, options.new, options.changes, kind)))


if __name__ == "__main__":
    main()

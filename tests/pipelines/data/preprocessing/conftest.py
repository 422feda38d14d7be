"""Datasets of real photos, and the stage as a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from pipelines.core.row_schemas import DATASET_SCHEMA
from tests.pipelines.photos import dataset_row, real_networks, write_shards

_PATIENCE = 800


def write_faces(folder: Path, photos: list[tuple[str, str | None, bytes]], row_group: int = 4) -> Path:
    """Write photos (name, identity, bytes) as one shard of a dataset."""
    rows = [dataset_row(name, data, identity) for name, identity, data in photos]
    return write_shards(folder, DATASET_SCHEMA, [rows], row_group)


@dataclass
class StageProcess:
    """A running `dynamicid preprocess` and what it has finished."""

    process: subprocess.Popen[str]
    folder: Path
    tree: list[psutil.Process] = field(default_factory=list)

    def finished(self) -> dict[str, tuple[int, int]]:
        """Return the slices that are finished: file name → inode and time of writing."""
        files = (self.folder / ".dynamicid" / "preprocess").glob("*.arrow")
        return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    def wait_for_slices(self, count: int) -> None:
        """Wait until `count` slices are finished; remember the processes that run then."""
        deadline = time.monotonic() + _PATIENCE
        while len(self.finished()) < count:
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < deadline, f"fewer than {count} slices within {_PATIENCE} s"
            time.sleep(0.005)
        self.tree = psutil.Process(self.process.pid).children(recursive=True)

    def python_workers(self) -> list[psutil.Process]:
        """Return Spark's Python worker processes: children of the daemon that forks them."""
        return [
            child for child in self.tree if _runs(child, "pyspark.daemon") and _runs(child.parent(), "pyspark.daemon")
        ]

    def kill_driver(self) -> None:
        """Kill the driver's process alone, and wait for its children to end by themselves."""
        self.process.kill()
        self.process.communicate()
        psutil.wait_procs(self.tree, timeout=_PATIENCE)
        assert not [child for child in self.tree if child.is_running()]

    def report(self) -> dict[str, object]:
        """Wait for the end and return the stage's report."""
        out, errors = self.process.communicate(timeout=_PATIENCE)
        assert self.process.returncode == 0, errors[-3000:]
        return json.loads(out)

    def rows(self) -> dict[str, bytes]:
        """Return the bytes of all buckets."""
        return {file.name: file.read_bytes() for file in sorted((self.folder / "processed").iterdir())}

    def count_rows(self) -> int:
        """Return the number of rows written."""
        return sum(pq.read_metadata(file).num_rows for file in (self.folder / "processed").iterdir())


def _runs(process: psutil.Process | None, module: str) -> bool:
    try:
        return process is not None and module in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def start_stage(project: Path, shared: Path) -> Callable[..., StageProcess]:
    """Start the stage in a separate folder: (folder, faces, *changes) → the process."""

    def start(folder: Path, faces: Path, *changes: str) -> StageProcess:
        folder.mkdir(parents=True, exist_ok=True)
        sets = [word for change in (*real_networks(shared), *changes) for word in ("--set", change)]
        params = str(project / "profiles" / "tiny.yaml")
        command = [sys.executable, "-m", "pipelines.cli", "preprocess", str(faces), "--out", "processed"]
        process = subprocess.Popen(
            [*command, "--params", params, *sets],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(project), "SPARK_LOCAL_IP": "127.0.0.1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return StageProcess(process, folder)

    return start


@pytest.fixture(scope="session")
def people(shared: Path) -> list[tuple[str, str | None, bytes]]:
    """Forty photos of ten people (name, identity, bytes)."""
    folder = shared / "photos" / "lfw10_krasserm"
    files = [file for person in sorted(folder.iterdir()) for file in sorted(person.glob("*.jpg"))[:4]]
    return [(str(file.relative_to(folder)), file.parent.name, file.read_bytes()) for file in files]


@pytest.fixture(scope="session")
def faces(people: list[tuple[str, str | None, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forty photos as a dataset of ten slices of four (`preprocess.slice_photos=4`)."""
    return write_faces(tmp_path_factory.mktemp("kill") / "faces", people)


@pytest.fixture(scope="session")
def undisturbed(
    faces: Path, start_stage: Callable[..., StageProcess], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The buckets of an undisturbed run whose work is divided differently."""
    stage = start_stage(tmp_path_factory.mktemp("undisturbed"), faces, "preprocess.master=local[1]")
    assert stage.report()["rows"] == 40
    return stage.rows()

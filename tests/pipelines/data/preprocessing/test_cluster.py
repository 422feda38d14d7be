"""The stage on a standalone Spark cluster of two workers on this machine, one of whose executors is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.data.spark import SECRET_VARIABLE
from tests.processes import PROJECT, free_port, wait_until

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(900)]

_PATIENCE = 300
_SECRET = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Cluster:
    """A standalone master with its workers."""

    url: str
    workers: list[subprocess.Popen[bytes]]

    def executors(self) -> list[psutil.Process]:
        """Return the executors' JVMs, one a worker."""
        return [
            child
            for worker in self.workers
            for child in psutil.Process(worker.pid).children(recursive=True)
            if _is_executor(child)
        ]


def _is_executor(process: psutil.Process) -> bool:
    try:
        return any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        # It ended, or became a zombie, after it was listed.
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real master and two real workers of one core each, on loopback."""
    import pyspark

    home = Path(pyspark.__file__).parent
    folder = tmp_path_factory.mktemp("cluster")
    log = folder / "master.log"
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dspark.authenticate=true",
        "_SPARK_AUTH_SECRET": _SECRET,
    }

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as output:
            command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)

    master = start("master", "master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
    workers = [
        start(
            f"worker-{number}",
            "worker.Worker",
            *("--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0"),
            *("--work-dir", str(folder / f"work-{number}"), url),
        )
        for number in range(2)
    ]
    try:
        wait_until(lambda: log.read_text().count("Registering worker") == 2, _PATIENCE, log.read_text)
        yield Cluster(url, workers)
    finally:
        for process in [*workers, master]:
            process.terminate()
        for process in [*workers, master]:
            process.wait(_PATIENCE)


@pytest.mark.parametrize("secret", [None, "another secret of the same kind"])
def test_without_the_secret_nothing_runs_on_the_cluster(
    cluster: Cluster, secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    if secret is not None:
        monkeypatch.setenv(SECRET_VARIABLE, secret)
    code = (
        "from pipelines.data.spark import spark_context\n"
        f"with spark_context({cluster.url!r}, 'x') as context: print('runs', context.parallelize([1], 1).count())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "runs" not in done.stdout


def test_an_executor_lost_on_a_cluster_costs_no_row(
    *,
    cluster: Cluster,
    faces: Path,
    start_stage: Callable[..., Any],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in the containers, the environment variable overrides the parameter.
    monkeypatch.setenv("DYNAMICID_SPARK_MASTER", cluster.url)
    monkeypatch.setenv(SECRET_VARIABLE, _SECRET)
    stage = start_stage(tmp_path, faces, "preprocess.slice_photos=4", "preprocess.spark={spark.executor.memory: 512m}")
    stage.wait_for_slices(2)
    executors = cluster.executors()
    print(f"\nexecutors: {len(executors)}")
    assert executors
    executors[0].kill()
    finished = stage.finished()
    report = stage.report()
    again = sum(stage.finished()[file] != written for file, written in finished.items())
    print(
        f"executor killed: rows in 40, rows out {stage.count_rows()}, partitions {len(stage.finished())}, "
        f"finished before the kill {len(finished)}, of these computed again {again}"
    )
    assert report["rows"] == stage.count_rows() == 40
    assert again == 0
    # The bytes are those of one local worker, although the work was divided differently.
    assert stage.rows() == undisturbed

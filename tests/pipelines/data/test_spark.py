"""Starting Spark: missing Java is reported, and the task of a killed worker is repeated."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.data.spark import check_java, reported, run_tasks, spark_context, telling, with_retries


def test_a_missing_java_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no java on PATH; Spark needs Java 17: `apt-get install openjdk-17"):
        check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match="holds no bin/java"):
        check_java()


@pytest.mark.parametrize(("answer", "found"), [('openjdk version "11.0.2"', "11"), ("hello", "of unknown version")])
def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: str) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"is Java {found}; Spark needs Java 17"):
        check_java()


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        ("local", "local[1,4]"),
        ("local[2]", "local[2,4]"),
        ("local[*]", "local[*,4]"),
        ("local[2,1]", "local[2,1]"),
        ("spark://host:7077", "spark://host:7077"),
    ],
)
def test_local_masters_retry(master: str, expected: str) -> None:
    assert with_retries(master) == expected


def test_a_setting_that_is_not_sparks_is_refused() -> None:
    with (
        pytest.raises(UserError, match=r"preprocess\.spark: executor\.memory is no setting of Spark"),
        spark_context("local[1]", "test", {"executor.memory": "2g", "spark.executor.cores": "1"}),
    ):
        pass


def test_tasks_run_on_this_python_survive_a_kill_and_report_errors(tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    def work(item: int) -> tuple[int, str, str | None]:
        if item == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item, sys.executable, os.environ.get("OMP_NUM_THREADS")

    def fail(item: int) -> int:
        if item == 1:
            raise LookupError("the number one is missing")
        return item

    def refuse(item: int) -> int:
        raise UserError(f"weights.onnx: only\nthe pointer of a file {chr(252)} {item}")

    def end(item: int) -> int:
        raise StageFailed("the disk is full")

    with spark_context("local[2]", "test") as context:
        results = run_tasks(context, range(5), work, weights=[1] * 5, title="squares", unit="numbers")
        assert results == [(item * item, sys.executable, "1") for item in range(5)]
        assert killed.exists()
        with pytest.raises(StageFailed, match="failing: a worker failed: LookupError: the number one is missing"):
            run_tasks(context, range(2), fail, weights=[1, 1], title="failing", unit="numbers")
        with pytest.raises(UserError, match=r"^weights\.onnx: only the pointer of a file ü 0$"):
            run_tasks(context, range(2), refuse, weights=[1, 1], title="refusing", unit="numbers")
        for task, error in ((refuse, UserError), (end, StageFailed), (fail, StageFailed)):
            lines = r"the pointer|^the disk is full$|^reading: .*number one is missing"
            with pytest.raises(error, match=lines), reported("reading"):
                context.parallelize(range(2), 2).map(telling(task)).collect()
    assert "PYSPARK_DRIVER_PYTHON" not in os.environ

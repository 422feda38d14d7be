"""Starting Spark: missing Java is reported, and the task of a killed worker is repeated."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.data.spark import check_java, reported, run_tasks, spark_context, telling, with_retries
from tests.processes import PROJECT, run


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


_ODD = """
import os
from pipelines.data.spark import run_tasks, spark_context

def work(item):
    import pipelines.core.paths as there
    return os.fsencode(there.project_root())

with spark_context("local[1]", "odd") as context:
    found = run_tasks(context, range(2), work, weights=[1, 1], title="odd", unit="items")
print(found == [os.getcwdb()] * 2)
"""
_OTHER_SPARK = {
    "SPARK_HOME": "/opt/other spark",
    "SPARK_CONF_DIR": "/opt/other spark/conf",
    "SPARK_LOCAL_DIRS": "/proc/none",
    "PYSPARK_SUBMIT_ARGS": "--master yarn --jars /none.jar pyspark-shell",
    "PYSPARK_PYTHON": "/opt/other/python",
    "PYSPARK_DRIVER_PYTHON_OPTS": "notebook",
    "HADOOP_CONF_DIR": "/opt/hadoop",
    "_JAVA_OPTIONS": "-Xmx2m",
    "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.country=TR",
    "CLASSPATH": "/opt/other.jar",
    "CDPATH": "/opt",
}


@pytest.mark.parametrize(
    ("checkout", "scratch", "env"),
    [
        ("plain", "with space", {}),
        ("C# faces: 50%20off,*", "t,m:p #1 'q' \"r\" $HOME", _OTHER_SPARK),
        ("名前 n\u0303", "\u00fc" * 60, {"LC_ALL": "C"}),
    ],
)
def test_spark_starts_in_odd_folders_beside_other_installations(
    project: Path, tmp_path: Path, checkout: str, scratch: str, env: dict[str, str]
) -> None:
    """Workers import the code of the checkout, and nothing but results is printed."""
    home, temporary = tmp_path / checkout, tmp_path / scratch
    for folder in (home, temporary):
        folder.mkdir()
    shutil.copytree(project / "pipelines", home / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(sys.executable, "-c", _ODD, cwd=home, env={**env, "TMPDIR": str(temporary)})
    assert done.stdout.split() == ["True"]
    assert done.stderr.strip() == "", "neither remarks of Java nor warnings"
    assert list(temporary.iterdir()) == []


def test_java_that_does_not_start_gives_its_reason(tmp_path: Path) -> None:
    script = (
        "from pipelines.data.spark import spark_context\n"
        "with spark_context('local[1]', 'x', {'spark.driver.memory': '1z'}): pass"
    )
    done = run(sys.executable, "-c", script, cwd=PROJECT, code=1)
    assert "StageFailed: Spark does not start: " in done.stderr.splitlines()[-1]
    assert "1z" in done.stderr.splitlines()[-1]

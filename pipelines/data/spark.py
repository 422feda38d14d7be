"""Start Spark without its usual log, with this interpreter and checkout, and with retries also in local mode."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.processors import environment_of
from pipelines.core.environment import clean_environment, environment, own_folders, plain_path
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.paths import project_root

if TYPE_CHECKING:
    import pyarrow as pa

# The secret that a cluster's master, workers and applications share; without it nobody can run anything there.
SECRET_VARIABLE = "DYNAMICID_SPARK_SECRET"
_POLL_SECONDS = 0.3
_NEEDED_JAVA = 17
_MARK = "#dynamicid#"
_MARKED = re.compile(f"{_MARK}(.*?){_MARK}")
_HOW = "Spark needs Java 17: `apt-get install openjdk-17-jre-headless` (Debian, Ubuntu) or `brew install openjdk@17`"
# What Java writes to stderr at every start.
_REMARK = re.compile(r"WARNING: Using incubator modules|Picked up \w+:")
_LOG4J = """\
status = error
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = spark: %p %c{1}: %m%n
logger.executor.name = org.apache.spark.executor
logger.executor.level = off
logger.tasks.name = org.apache.spark.scheduler
logger.tasks.level = off
logger.python.name = org.apache.spark.api.python.PythonRunner
logger.python.level = off
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
"""


def check_java() -> None:
    """Raise UserError, with how to install it, where JAVA_HOME (PATH where that is unset) has no Java 17 or later."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        where = f"JAVA_HOME = {home} holds no bin/java" if home else "no java on PATH"
        raise UserError(f"{where}; {_HOW}")
    answer = subprocess.run(
        [java, "-version"], env=clean_environment(), capture_output=True, text=True, errors="replace", check=False
    )
    version = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if version is None or int(version[1]) < _NEEDED_JAVA:
        found = version[1] if version else "of unknown version"
        where = f"JAVA_HOME: {java}" if home else java
        raise UserError(f"{where} is Java {found}; {_HOW}")


def with_retries(master: str) -> str:
    """Return the master with four attempts per task in local mode, where Spark's default is one.

    The task of a killed worker process is then repeated, and the run does not fail.
    """
    match = re.fullmatch(r"local(?:\[(\d+|\*)\])?", master)
    return f"local[{match[1] or 1},4]" if match else master


@contextmanager
def spark_context(master: str, name: str, overrides: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield a SparkContext on `master`, and stop it at the end; raise UserError where Java is missing.

    `overrides` are settings of Spark that replace those of this module. Cluster workers run `spark.pyspark.python`: by
    default the driver's interpreter, which, like the checkout, must then have the same path on every machine; else one
    from an archive. No SparkSession is made: its SQL engine is not used and would double Spark's start-up time.
    """
    overrides = dict(overrides or {})
    unknown = sorted(key for key in overrides if not key.startswith("spark."))
    if unknown:
        raise UserError(f"preprocess.spark: {', '.join(unknown)} is no setting of Spark: all names begin with `spark.`")
    check_java()
    from pyspark import SparkConf

    local = master.startswith("local")
    with ExitStack() as stack:
        # Java options and lists of folders cannot carry every path; other machines have no link of this one.
        root = stack.enter_context(plain_path(project_root())) if local else project_root()
        whole = stack.enter_context(tempfile.TemporaryDirectory(prefix="dynamicid-spark-"))
        scratch = stack.enter_context(plain_path(Path(whole)))
        (scratch / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
        clean = clean_environment()
        secret = clean.pop(SECRET_VARIABLE, None)
        if secret and not local:
            # A file, as everybody on the machine can read command lines.
            settings = f"spark.authenticate true\nspark.authenticate.secret {secret}\n"
            write_atomically(scratch / "spark-defaults.conf", settings, mode=0o600)
        # The JVM and its workers read these: they must run this Python and this checkout.
        own = {
            "PYSPARK_PYTHON": overrides.get("spark.pyspark.python", sys.executable),
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(root), *own_folders(clean.get("PYTHONPATH", ""))]),
            # On Java's class path, where log4j looks for its settings.
            "SPARK_CONF_DIR": str(scratch),
            **({"SPARK_LOCAL_IP": "127.0.0.1"} if local else {}),
        }
        stack.enter_context(environment({**clean, **own}))
        # An interpreter that is shipped to the workers already includes the code.
        shipped = "spark.pyspark.python" in overrides
        values = _settings(master, str(scratch), "" if shipped else own["PYTHONPATH"]) | overrides
        conf = SparkConf().setMaster(with_retries(master)).setAppName(name).setAll(list(values.items()))
        context = _start(conf)
        try:
            yield context
        finally:
            context.stop()


def _start(conf: Any) -> Any:
    """Start Java, unless this process has it already, and return a SparkContext; StageFailed with Java's reason."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    printed: deque[str] = deque(maxlen=50)
    try:
        gateway = SparkContext._gateway
        if gateway is None:
            with _errors_of_java(printed) as stream:
                gateway = launch_gateway(conf, {"stderr": stream})
        return SparkContext(gateway=gateway, conf=conf)
    except (PySparkException, Py4JError) as error:
        # Java names the reason first and says afterwards that it ends; Spark's own errors come as exceptions.
        why = next((line for line in map(str.strip, printed) if line), None) or _spark_error(str(error))
        raise StageFailed(f"Spark does not start: {why}") from None


@contextmanager
def _errors_of_java(printed: deque[str]) -> Iterator[int]:
    """Yield a stream for Java's errors: its lines but remarks go to stderr, and the last ones to `printed`."""
    reading, writing = os.pipe()

    def forward() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not _REMARK.match(line):
                    printed.append(line)
                    sys.stderr.write(line)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield writing
    except BaseException:
        os.close(writing)
        thread.join(_POLL_SECONDS)
        raise
    os.close(writing)


def run_tasks(
    context: Any, items: Sequence[Any], task: Callable[[Any], Any], *, weights: Sequence[int], title: str, unit: str
) -> list[Any]:
    """Run one Spark task per item and return the results in the order of `items`.

    A progress bar called `title` counts the `weights` of finished items in `unit`. Raises as `reported` where a task
    fails in all its attempts.
    """
    from pyspark import InheritableThread
    from tqdm import tqdm

    done = context.accumulator(0)
    results: list[Any] = []
    failures: list[BaseException] = []

    def work(numbered: tuple[int, Any]) -> tuple[int, Any]:
        index, item = numbered
        try:
            result = telling(task)(item)
        except WorkerError as error:
            if isinstance(error.__cause__, UserError | StageFailed):
                return index, error  # another attempt would say the same
            raise
        done.add(weights[index])
        return index, result

    def job() -> None:
        try:
            # The heaviest items first: the last tasks are then short, and no worker waits long for another.
            numbered = sorted(enumerate(items), key=lambda pair: -weights[pair[0]])
            results.extend(context.parallelize(numbered, len(items)).map(work).collect())
        except Exception as error:
            failures.append(error)

    thread = InheritableThread(target=job, daemon=True)
    thread.start()
    with tqdm(total=sum(weights), desc=title, unit=unit, file=sys.stderr, disable=None) as bar:
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                bar.update(done.value - bar.n)
        except BaseException:
            context.cancelAllJobs()
            raise
    failures += [result for _, result in results if isinstance(result, WorkerError)]
    if failures:
        with reported(title):
            raise failures[0]
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def collect_rows(
    context: Any, items: Sequence[Any], read: Callable[[Any], pa.Table], schema: pa.Schema, tasks: int
) -> pa.Table:
    """Return the rows (`schema`) that `read` returns in the workers for every item, in the order of `items`."""
    import pyarrow as pa

    def packed(item: Any) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_table(telling(read)(item))
        return sink.getvalue().to_pybytes()

    parts = context.parallelize(list(items), tasks).map(packed).collect()
    return pa.concat_tables([schema.empty_table(), *(pa.ipc.open_stream(part).read_all() for part in parts)])


def data_frame(
    context: Any, items: Sequence[Any], read: Callable[[Any], pa.Table], schema: pa.Schema, tasks: int
) -> Any:
    """Return the rows of `collect_rows`, in no certain order, as a DataFrame of Spark, which may not fit in memory.

    The files are read by `read`, not by Spark, which takes some characters of paths for patterns.
    """
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            yield from telling(read)(items[number]).to_batches()

    session = SparkSession(context)
    return session.range(0, len(items), 1, tasks).mapInArrow(rows, from_arrow_schema(schema))


class WorkerError(Exception):
    """What a task raised in a worker, between marks: Spark passes errors on only as text among traces."""

    @classmethod
    def of(cls, error: BaseException) -> WorkerError:
        """Return `error` as one line, with its class where that is one of the project's."""
        own = type(error).__name__ if isinstance(error, UserError | StageFailed) else ""
        text = " ".join(str(error).split())
        reason = text if own else f"{type(error).__name__}: {text}" if text else type(error).__name__
        return cls(f"{_MARK}{json.dumps([own, reason])}{_MARK}")


def telling(task: Callable[..., Any]) -> Callable[..., Any]:
    """Return `task` for a worker, with its errors as WorkerError, which `reported` reads in the driver."""

    def telling_task(*arguments: Any) -> Any:
        try:
            return task(*arguments)
        except Exception as error:
            raise WorkerError.of(error) from error

    return telling_task


@contextmanager
def reported(title: str) -> Iterator[None]:
    """Turn the errors of Spark inside the block into the worker's own: its UserError or StageFailed, as raised there.

    Any other error of a worker, and of Spark itself, becomes StageFailed with one line that names it.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, WorkerError) as error:
        marked = _MARKED.search(str(error))
        if marked is None:
            raise StageFailed(f"{title}: a worker failed: {_spark_error(str(error))}") from None
        own, reason = json.loads(marked[1])
        if own == UserError.__name__:
            raise UserError(reason) from None
        raise StageFailed(reason if own else f"{title}: a worker failed: {reason}") from None


def _spark_error(message: str) -> str:
    """Return the line that names the error in a message of Spark, where Python and Java traces are mixed."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("at ", "...", "Driver stacktrace"))]
    errors = [line for line in own if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
    return (errors or own or ["no message"])[-1]


def _settings(master: str, scratch: str, python_path: str) -> dict[str, str]:
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # The JVM only schedules Python: little compilation and a serial garbage collector halve its start-up time.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "spark.pyspark.python": sys.executable,
        "spark.python.worker.reuse": "true",
        # Every core has a worker with networks of its own: libraries must not start more threads.
        **{f"spark.executorEnv.{name}": value for name, value in environment_of(1).items()},
        "spark.executorEnv.HF_HUB_OFFLINE": "1",
    }
    if python_path:
        settings["spark.executorEnv.PYTHONPATH"] = python_path
    if master.startswith("local"):
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.local.dir": scratch,
            "spark.sql.warehouse.dir": scratch,
        }
    return settings

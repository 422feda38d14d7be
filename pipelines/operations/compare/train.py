"""Train the adapter of one cell (a row with one seed) by the commands of both stages, and note what it cost.

Each stage is a process of its own, so that its peak memory is its own. A killed comparison goes on where it was: what
is in the folder of the cell is not trained again, an unfinished stage resumes from its checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from model.network.methods import Method
from pipelines.core.errors import REASON_VARIABLE, StageFailed, UserError, read_reason
from pipelines.core.execution import VARIABLE
from pipelines.core.files import write_atomically
from pipelines.core.locks import hold_with_children
from pipelines.core.params import Params, dump_params
from pipelines.core.paths import project_root
from pipelines.core.screen import say
from pipelines.evaluation.belonging import check_training_reports

# The stages and the folders of their adapters in that of the cell.
STAGES = {"train_anchoring": "anchoring", "train_imr": "adapter"}
ADAPTER = STAGES["train_imr"]
# The stages, as reports of evaluations name their loss curves.
CURVES = {"anchoring": "train_anchoring", "reconfiguration": "train_imr"}
_COST = "cost.json"
# Running statistics are no trained parameters.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "templates")


def train(name: str, params: Params, method: Method, processed: Path, folder: Path) -> dict[str, Any]:
    """Train with `params` into `folder`, unless it is done; return what it cost.

    The cost has, for each stage that trains: `seconds` by the clock and `processor_seconds` of all cores (both None
    where it was interrupted), `peak_bytes` of its process, `peak_cuda_bytes` (None without a GPU), `seconds_per_step`
    (None of too short a training), `steps`; and `parameters`, the number of trained ones, and `adapter_bytes`.
    Raises what the stages raise.
    """
    busy = f"{name}: a training that a killed comparison left behind is at work, or another comparison; waiting for it"
    with hold_with_children(folder.with_suffix(".lock"), lambda: say(busy)) as lock:
        if (folder / _COST).is_file():
            return dict(json.loads((folder / _COST).read_bytes()))
        folder.mkdir(parents=True, exist_ok=True)
        dump_params(params.model_dump(mode="json", by_alias=True), folder / "params.yaml")
        stages = {
            stage: {"steps": getattr(params, stage).steps, **_stage(name, stage, processed, folder, lock)}
            for stage in STAGES
        }
        if not method.motion:
            del stages["train_imr"]  # it passes the adapter on
        weights = folder / ADAPTER / "adapter.safetensors"
        cost = {**stages, "parameters": trained_parameters(weights), "adapter_bytes": weights.stat().st_size}
        write_atomically(folder / _COST, json.dumps(cost, indent=1) + "\n")
    return cost


def trained_parameters(weights: Path) -> int:
    """Return the number of parameters in the weights of an adapter."""
    from safetensors import safe_open

    count = 0
    with safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            if not key.endswith(_STATISTICS):
                count += math.prod(file.get_slice(key).get_shape())
    return count


def _stage(name: str, stage: str, processed: Path, folder: Path, lock: int) -> dict[str, Any]:
    """Run a stage, unless its results are there, and return its cost."""
    noted, begun = folder / f"{stage}.json", folder / f"{stage}.begun"
    if noted.is_file():
        return dict(json.loads(noted.read_bytes()))
    interrupted = begun.exists()
    begun.touch()
    spent: dict[str, Any] = {"seconds": None, "processor_seconds": None, "peak_bytes": None}
    if not _is_made(stage, folder):
        say(f"{name}: {stage}{', resumed' if interrupted else ''}")
        spent = _run(stage, processed, folder, lock)
    times, cuda = _execution(folder / f"{stage}.jsonl")
    cost = {**spent, "peak_cuda_bytes": cuda, "seconds_per_step": _seconds_per_step(times)}
    if interrupted:
        cost |= {"seconds": None, "processor_seconds": None}
    write_atomically(noted, json.dumps(cost) + "\n")
    return cost


def _is_made(stage: str, folder: Path) -> bool:
    """Whether the stage has written all of its results: a child of a killed comparison may have done so since."""
    files = {file: folder / stage / file for file in ("losses.csv", "metrics.json")}
    if not all(path.is_file() for path in (*files.values(), folder / STAGES[stage] / "config.json")):
        return False
    try:
        check_training_reports(folder / STAGES[stage], stage, files)
    except (StageFailed, UserError):
        return False
    return True


def _run(stage: str, processed: Path, folder: Path, lock: int) -> dict[str, Any]:
    """Run the command of a stage; return its seconds by the clock and of processors, and its peak of memory in bytes.

    The process has the lock of the cell, too, as it outlives this one where that is killed.
    """
    command = ["-m", "pipelines.cli", stage.replace("_", "-"), "--params", str(folder / "params.yaml")]
    command += ["--processed", str(processed), "--out", str(folder / STAGES[stage]), "--reports", str(folder / stage)]
    command += ["--anchoring", str(folder / STAGES["train_anchoring"])] if stage == "train_imr" else []
    reason = folder / "reason.json"
    reason.unlink(missing_ok=True)
    code = os.pathsep.join(filter(None, (str(project_root()), os.environ.get("PYTHONPATH"))))
    given = {VARIABLE: str(folder / f"{stage}.jsonl"), REASON_VARIABLE: str(reason), "PYTHONPATH": code}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **given}, pass_fds=(lock,))
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode:
        _, text = read_reason(reason)
        kind = UserError if process.returncode == UserError.exit_code else StageFailed
        raise kind(text or f"{stage}: its process ended with {process.returncode}; the reason is above")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _execution(file: Path) -> tuple[list[tuple[float, int]], int | None]:
    """Return time and step of every row of the loss curve that a stage noted, and the peak of a GPU's memory."""
    times, cuda = [], None
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off
            continue
        if "row" in entry:
            times.append((float(entry["time"]), int(entry["row"]["step"])))
        cuda = entry.get("peak_cuda_bytes", cuda)
    return times, cuda


def _seconds_per_step(times: list[tuple[float, int]]) -> float | None:
    """Return the median time of a step, over the later rows: in the first ones photos may still be encoded."""
    pairs = itertools.pairwise(times)
    found = [(after - before) / (step - last) for (before, last), (after, step) in pairs if step > last]
    later = found[len(found) // 2 :]
    return float(f"{statistics.median(later):.4g}") if later else None

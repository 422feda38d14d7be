"""A training of a comparison: what it cost, and that a killed comparison goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.core.execution import VARIABLE, note_cuda_peak, note_row
from pipelines.core.locks import hold_with_children, is_held
from pipelines.operations.compare import train
from tests.pipelines.operations.compare.conftest import FEW, Home
from tests.processes import PROJECT, dynamicid, wait_until

COUNTS = [f"train_anchoring.{change}" for change in ("batch_size=2", "identity.weight=0", "log_every=2")]
SIZES = [f"train_anchoring.sizes.{change}" for change in ("lora_rank=2", "reconfigurator_width=32", "landmark_width=2")]
SHORT = ["train_imr.steps=4", "train_imr.log_every=2", "train_imr.helpers=3", "train_anchoring.checkpoint_every=2"]


def test_trained_parameters_are_counted_without_statistics(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.zeros(3, 4),
        "norm.running_mean": torch.zeros(9),
        "templates": torch.zeros(7, 5, 68, 2),
    }
    save_file(tensors, tmp_path / "adapter.safetensors")
    assert train.trained_parameters(tmp_path / "adapter.safetensors") == 12


def test_the_time_of_a_step_is_that_of_the_later_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "noted.jsonl"
    monkeypatch.setenv(VARIABLE, str(file))
    for step in (2, 4):
        note_row({"step": step, "loss": 0.1})
    note_cuda_peak(5)
    times, peak = train._execution(file)
    assert ([step for _, step in times], peak) == ([2, 4], 5)
    slow_first = [(0.0, 0), (9.0, 2), (10.0, 4), (11.0, 6), (30.0, 8), (31.0, 10)]
    assert train._seconds_per_step(slow_first) == 0.5
    assert train._seconds_per_step([(1.0, 2)]) is None


def test_a_child_that_is_given_the_lock_holds_it_when_its_parent_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "cell.lock"
    with hold_with_children(lock, lambda: pytest.fail("nobody holds it")) as descriptor:
        sleep = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(sleep, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    assert is_held(lock)
    child.communicate(b"\n")
    assert not is_held(lock)


@pytest.mark.nightly
def test_a_killed_comparison_goes_on_where_it_was(home: Home, processed: Path) -> None:
    changes = [*FEW, *COUNTS, *SIZES, *SHORT, "train_anchoring.steps=40"]
    command = ["compare", "--methods", "dynamicid,ip_adapter_faceid,text_only", "--seeds", "2"]
    command += ["--processed", str(processed), *(part for change in changes for part in ("--set", change))]
    start = [sys.executable, "-m", "pipelines.cli", *command]
    code = {**os.environ, "PYTHONPATH": str(PROJECT)}
    state = home.root / ".dynamicid"

    def killed_at(pattern: str) -> None:
        """Start the comparison, and kill it, with all that it started, when a path of the state is there."""
        process = subprocess.Popen(start, cwd=home.root, env=code, stderr=subprocess.PIPE, start_new_session=True)
        wait_until(lambda: list(state.glob(pattern)) or process.poll() is not None, 300, f"no {pattern}", pause=0.02)
        assert process.poll() is None, process.communicate()[1].decode()[-3000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    killed_at("resume/train_anchoring/*/step-*")
    assert not list(state.glob("compare/trained/*/cost.json"))
    killed_at("compare/evaluated/.*.part")  # while the first adapter is evaluated
    (first,) = state.glob("compare/trained/*/cost.json")
    before = first.stat().st_mtime_ns, time.time()
    done = dynamicid(*command, "--json", cwd=home.root)
    assert first.stat().st_mtime_ns == before[0], "it was not trained again"
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["rows"]] == ["dynamicid", "ip_adapter_faceid", "text_only"]
    assert [len(row["cells"]) for row in document["rows"]] == [2, 2, 1]
    ours, theirs = (row["cells"][0]["cost"] for row in document["rows"][:2])
    assert ours["train_anchoring"]["seconds"] is None, "nobody measured the part before the kill"
    assert ours["train_imr"]["seconds"] > 0 < theirs["train_anchoring"]["seconds"]
    assert "train_imr" not in theirs
    assert ours["parameters"] > theirs["parameters"] > 0
    assert "interrupted" in (home.root / "reports/compare/index.html").read_text()
    weights = [state.parent / row["cells"][0]["adapter"] / "adapter.safetensors" for row in document["rows"][:2]]
    trained = [file.read_bytes() for file in weights]

    # Another folder for the state: from the beginning and without a kill, the same adapters and figures.
    other = {"DYNAMICID_STATE": str(home.root / "elsewhere")}
    whole = dynamicid(*command, "--no-record", "--out", "reports/whole", "--json", cwd=home.root, env=other)
    for killed, once in zip(document["rows"], json.loads(whole.stdout)["rows"], strict=True):
        assert once["metrics"] == killed["metrics"]
        assert once["differences"] == killed["differences"]
    names = {
        path.parent.parent.name: path
        for path in (home.root / "elsewhere").glob("compare/trained/*/adapter/*.safetensors")
    }
    assert [names[file.parent.parent.name].read_bytes() for file in weights] == trained

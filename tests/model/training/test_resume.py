"""Checkpoints are complete, belong to one training, and are used by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from model.training.resume import Busy, Checkpoints, resume_key


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, "train_something", "0123abcd")


@pytest.fixture
def accelerator() -> Accelerator:
    accelerator = Accelerator()
    model = torch.nn.Linear(2, 2)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    return accelerator


def test_the_newest_whole_checkpoint_counts_and_two_are_kept(
    checkpoints: Checkpoints, accelerator: Accelerator
) -> None:
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(accelerator, step, {"note": step})
    # Left by a process killed while saving.
    (checkpoints.folder / "tmp-00000020").mkdir()
    (checkpoints.folder / "step-00000025").mkdir()
    newest = checkpoints.latest()
    assert newest == checkpoints.folder / "step-00000015"
    assert checkpoints.load(accelerator, newest) == (15, {"note": 15})
    assert sorted(path.name for path in checkpoints.folder.glob("step-000000[01]*")) == [
        "step-00000010",
        "step-00000015",
    ]
    checkpoints.save(accelerator, 20, {})
    assert not list(checkpoints.folder.glob("tmp-*"))
    checkpoints.clear()
    assert checkpoints.latest() is None


def test_a_missing_checkpoint_or_one_of_another_training_is_refused(
    checkpoints: Checkpoints, accelerator: Accelerator, tmp_path: Path
) -> None:
    checkpoints.save(accelerator, 5, {})
    folder = checkpoints.folder / "step-00000005"
    assert checkpoints.checked(folder) == folder
    with pytest.raises(ValueError, match=r"nowhere: no such checkpoint to resume from"):
        checkpoints.checked(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="other inputs or parameters"):
        Checkpoints(tmp_path, "train_something", "4567cdef").checked(folder)


def test_a_second_process_waits_and_then_names_the_first(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    second = Checkpoints(checkpoints.folder.parents[1], "train_something", checkpoints.key)
    with (
        checkpoints.locked(0),
        pytest.raises(Busy, match=f"process {os.getpid()} still trains"),
        second.locked(0.2),
    ):
        pass
    assert f"process {os.getpid()} is training the same thing" in capsys.readouterr().err
    with second.locked(0):
        assert not capsys.readouterr().err


def test_the_key_depends_on_inputs_and_parameters() -> None:
    one = resume_key({"photos": "a"}, {"steps": 3})
    assert one == resume_key({"photos": "a"}, {"steps": 3})
    assert len({one, resume_key({"photos": "b"}, {"steps": 3}), resume_key({"photos": "a"}, {"steps": 4})}) == 3

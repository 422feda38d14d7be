"""Checkpoints are complete, belong to one training, and are used by one process at a time."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("file", ["optimizer.bin", "model.safetensors", "random_states_0.pkl", "progress.json"])
@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_cut_checkpoint_is_named_and_the_one_before_is_used(
    checkpoints: Checkpoints, accelerator: Accelerator, file: str, with_hashes: bool
) -> None:
    """As after a full disk or a crash of the machine; checkpoints of earlier versions hold no hashes."""
    for step in (5, 10):
        checkpoints.save(accelerator, step, {"note": step})
    first, second = (checkpoints.folder / f"step-000000{step}" for step in ("05", "10"))
    if not with_hashes:
        for folder in (first, second):
            progress = json.loads((folder / "progress.json").read_text())
            del progress["files"]
            (folder / "progress.json").write_text(json.dumps(progress))
    os.truncate(second / file, (second / file).stat().st_size // 2)
    assert checkpoints.latest() == first
    assert checkpoints.load(accelerator, first) == (5, {"note": 5})
    ((damaged, problem),) = checkpoints.damaged.items()
    assert damaged == second
    assert file in problem
    with pytest.raises(ValueError, match=f"damaged: {file}"):
        checkpoints.checked(second)
    os.truncate(first / file, 0)
    assert checkpoints.latest() is None, "with none that is whole, training begins again"
    checkpoints.save(accelerator, 6, {})
    assert [path.name for path in checkpoints.folder.glob("step-*")] == ["step-00000006"]


def test_a_changed_byte_is_damage_too(checkpoints: Checkpoints, accelerator: Accelerator) -> None:
    checkpoints.save(accelerator, 5, {})
    file = checkpoints.folder / "step-00000005" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert checkpoints.latest() is None
    assert "model.safetensors is cut or changed" in str(checkpoints.damaged)


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

"""A full disk ends a command with one clear line and leaves earlier files unchanged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.stages import conftest as stages

# A fixture of the training stages: processed photos of eight people.
write_processed = stages.write_processed

# Mount a small file system that only this command and its children see.
_SMALL = ["unshare", "--mount", "--map-root-user", "sh", "-c"]


def _possible() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*_SMALL, "mount -t tmpfs -o size=1m none /mnt"], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not _possible(), reason="no right to mount a small file system here")


def on_small_disk(project: Path, folder: Path, kilobytes: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run the shell `script` with $DISK, a file system of that size, and $PYTHON."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = f"mount -t tmpfs -o size={kilobytes}k none {folder} && {script}"
    settings = [f"DISK={folder}", f"PYTHON={sys.executable}", f"PYTHONPATH={project}"]
    return subprocess.run(
        ["env", *settings, *_SMALL, mounted], cwd=project, capture_output=True, text=True, check=False
    )


def error_line(file: Path) -> str:
    """Return the one line of stderr in which a command reports its error."""
    text = file.read_text()
    assert "Traceback" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("dynamicid: "))
    return line


def digests(file: Path) -> dict[str, str]:
    """Return the output of sha256sum as file → digest."""
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in file.read_text().splitlines())}


def lost(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the files that are missing or changed."""
    return [name for name, digest in before.items() if after.get(name) != digest]


def photos(folder: Path, count: int, seed: int) -> Path:
    """Write `count` photos of about 60 kB each: noise, which cannot be compressed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_full_disk_while_a_shard_is_written_leaves_the_dataset_as_it_was(project: Path, tmp_path: Path) -> None:
    few, many = photos(tmp_path / "few", 4, 0), photos(tmp_path / "many", 40, 1)
    ingest = '"$PYTHON" -m pipelines.cli ingest --no-version --out "$DISK/faces" --layout flat'
    script = f"""
        set -e
        {ingest} {few}
        sha256sum "$DISK"/faces/*.parquet > {tmp_path}/before
        if {ingest} {many} 2> {tmp_path}/stderr; then exit 9; else echo "exit $?" > {tmp_path}/code; fi
        sha256sum "$DISK"/faces/*.parquet > {tmp_path}/after
        ls -A "$DISK/faces" > {tmp_path}/files
        mount -o remount,size=20m "$DISK"
        {ingest} {many} > {tmp_path}/again
    """
    done = on_small_disk(project, tmp_path / "disk", 1024, script)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    (rows,) = map(int, re.findall(r'"rows": (\d+)', (tmp_path / "again").read_text()))
    gone = lost(before, after)
    print(f"disk full while a shard is written: shards lost: {len(gone)} of {len(before)}; with room: {rows} photos")
    assert (tmp_path / "code").read_text() == "exit 1\n"
    assert "no space left on the disk" in error_line(tmp_path / "stderr")
    assert after == before
    assert ".part" not in (tmp_path / "files").read_text()
    assert rows == 44


_LOOP = {"steps": 6, "checkpoint_every": 2, "log_every": 2, "batch_size": 4, "probe_photos": 4}


@pytest.fixture
def train(project: Path, tmp_path: Path, write_processed: Callable[..., Path]) -> str:
    """A command that trains the first stage of the profile `tiny` for a few steps in the working folder."""
    command = f'"$PYTHON" -m pipelines.cli train-anchoring --params {project}/profiles/tiny.yaml'
    command += f" --processed {write_processed(tmp_path / 'processed')} --out models/anchoring --reports reports"
    return command + "".join(f" --set train_anchoring.{name}={value}" for name, value in _LOOP.items())


def written(folder: Path) -> dict[str, bytes]:
    """Return the files that the stage wrote: weights and their description, loss curve and figures."""
    found = [*folder.glob("models/*/*"), *folder.glob("reports/*")]
    assert len(found) == 4
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


@pytest.mark.nightly
def test_a_full_disk_while_a_checkpoint_is_written_costs_no_checkpoint(
    project: Path, tmp_path: Path, train: str
) -> None:
    """Training stops at its second checkpoint, resumes from the first, and ends with the same bytes."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Training is paused after its first checkpoint, whose digests are taken before the second begins.
    script = f"""
        set -e
        digest() {{ find "$DISK" -path '*/step-*' -type f -exec sha256sum {{}} +; }}
        mkdir {whole}
        cd {whole}
        {train}
        cd {cut}
        {train} 2> {tmp_path}/stderr & training=$!
        until ls -d "$DISK"/*/*/step-* > /dev/null 2>&1; do kill -0 $training; sleep 0.02; done
        kill -STOP $training
        digest > {tmp_path}/before
        kill -CONT $training
        if wait $training; then exit 9; else echo "exit $?" > {tmp_path}/code; fi
        digest > {tmp_path}/after
        ls -A "$DISK"/*/*/ > {tmp_path}/files
        mount -o remount,size=400m "$DISK"
        {train} 2> {tmp_path}/resumed
    """
    # A checkpoint takes 55 MB. One fits; of a second one the weights fit, but not the optimiser's state.
    done = on_small_disk(project, cut / ".dynamicid" / "resume", 80 * 1024, script)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    (resumed,) = map(int, re.findall(r"resumed at step (\d+) of 6", (tmp_path / "resumed").read_text()))
    gone = {Path(name).parent for name in lost(before, after)}
    print(f"disk full while a checkpoint is written: checkpoints lost: {len(gone)}; resumed at step {resumed} of 6")
    line = error_line(tmp_path / "stderr")
    assert (tmp_path / "code").read_text() == "exit 1\n"
    assert "no space left on the disk for .dynamicid/resume/train_anchoring/" in line
    assert {Path(name).name for name in before} >= {"model.safetensors", "optimizer.bin", "progress.json"}
    assert after == before
    assert (tmp_path / "files").read_text() == "step-00000002\n", "the unfinished checkpoint is deleted"
    assert resumed == 2
    assert written(cut) == written(whole)


@pytest.mark.nightly
def test_a_full_disk_while_weights_are_written_leaves_the_old_ones(project: Path, tmp_path: Path, train: str) -> None:
    disk = tmp_path / "models"
    script = f"""
        set -e
        cd {tmp_path}
        mkdir "$DISK/anchoring"
        head -c 1000000 /dev/urandom > "$DISK/anchoring/adapter.safetensors"
        sha256sum "$DISK"/anchoring/* > before
        if {train} --set train_anchoring.steps=2 2> stderr; then exit 9; else echo "exit $?" > code; fi
        sha256sum "$DISK"/anchoring/* > after
        ls -A "$DISK" > files
    """
    # The weights take 14 MB.
    done = on_small_disk(project, disk, 8 * 1024, script)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    kept = [file.parent.name for file in tmp_path.glob(".dynamicid/resume/*/*/*/progress.json")]
    gone = lost(before, after)
    print(f"disk full while weights are written: files lost: {len(gone)} of {len(before)}; checkpoint kept: {kept[0]}")
    assert (tmp_path / "code").read_text() == "exit 1\n"
    assert "no space left on the disk for models/anchoring;" in error_line(tmp_path / "stderr")
    assert after == before
    assert (tmp_path / "files").read_text() == "anchoring\n", "the unfinished weights are deleted"
    assert kept == ["step-00000002"], "the next run only has to write the weights"

"""A disk that is full ends in one clear line, and what was there before is as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# A small file system of its own, seen by this command and its children only.
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
    return subprocess.run(
        ["env", f"DISK={folder}", f"PYTHON={sys.executable}", "OMP_NUM_THREADS=1", *_SMALL, mounted],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def photos(folder: Path, count: int, seed: int) -> Path:
    """Write `count` photos of about 60 kB each: noise, which nothing can compress."""
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
        if {ingest} {many} 2> {tmp_path}/said; then exit 9; else echo "exit $?" > {tmp_path}/code; fi
        sha256sum "$DISK"/faces/*.parquet > {tmp_path}/after
        ls -A "$DISK/faces" > {tmp_path}/files
        mount -o remount,size=20m "$DISK"
        {ingest} {many} > {tmp_path}/again
    """
    done = on_small_disk(project, tmp_path / "disk", 1024, script)
    assert done.returncode == 0, done.stdout + done.stderr
    said = (tmp_path / "said").read_text()
    assert (tmp_path / "code").read_text() == "exit 1\n"
    assert "no space left on the disk" in said
    assert "Traceback" not in said
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
    assert ".part" not in (tmp_path / "files").read_text()
    assert '"rows": 44' in (tmp_path / "again").read_text()


_TRAIN = """
import hashlib, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from model.training.resume import Checkpoints

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(256, 256)
optimizer = torch.optim.AdamW(model.parameters())
model, optimizer = accelerator.prepare(model, optimizer)
model(torch.ones(1, 256)).sum().backward()
optimizer.step()
kept = Checkpoints(Path(sys.argv[1]), "train_imr", "key")

def digest():
    files = sorted(path for path in kept.latest().rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

kept.save(accelerator, 1, {"losses": [0.5]})
first, before = kept.latest(), digest()
try:
    kept.save(accelerator, 2, {"losses": [0.5, 0.4]})
except OSError as error:
    print("said:", error)
assert kept.latest() == first and digest() == before
assert [path.name for path in kept.folder.iterdir()] == ["step-00000001"], "what was begun is gone, its room is free"
step, state = Checkpoints.load(accelerator, first)
assert (step, state) == (1, {"losses": [0.5]})
print("resumes from", step)
"""


def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_one_before(project: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_TRAIN)
    # A checkpoint takes about 800 kB: one fits, a second does not.
    script = f'PYTHONPATH=. "$PYTHON" {tmp_path / "train.py"} "$DISK"'
    done = on_small_disk(project, tmp_path / "disk", 1200, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No space left on device" in done.stdout
    assert "checkpoint of step 2" in done.stdout
    assert "resumes from 1" in done.stdout

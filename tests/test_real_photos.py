"""Real photos and real networks run down the line: ingest, validate, preprocess, and the anchoring stage trains."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.records import PROCESSED_SCHEMA, read_rows

pytestmark = [pytest.mark.realdata, pytest.mark.nightly]
PHOTOS = 100


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def line(checkout: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the checkout in which LFW photos have been ingested, validated and preprocessed."""
    root = tmp_path_factory.mktemp("real") / "line"
    subprocess.run(["git", "clone", "-q", str(checkout), str(root)], check=True)
    command(
        root,
        "configure",
        "--profile",
        "tiny",
        "--set",
        "preprocess.insightface_name=buffalo_real_mini",
        "--set",
        f"preprocess.insightface_root={shared / 'weights' / 'insightface'}",
        "--set",
        f"preprocess.landmarker={{kind: onnx, path: {shared / 'weights/landmarks68/slim_160_latest.onnx'}, "
        "input_size: 160, box_scale: 1.4, mean: 127.0, scale: 127.0, channel_order: bgr}",
        "--set",
        "train_anchoring.steps=20",
        "--set",
        "train_anchoring.batch_size=8",
        "--set",
        "train_anchoring.identity.weight=0",
    )
    command(root, "ingest", str(shared / "photos" / "lfw10_krasserm"), "--out", "data/faces")
    command(root, "validate")
    command(root, "preprocess")
    return root


@pytest.mark.timeout(900)
def test_every_photo_is_one_row(line: Path) -> None:
    rows = read_rows(line / "data" / "processed", PROCESSED_SCHEMA, ["image_id", "status", "identity"])
    assert rows.num_rows == PHOTOS
    assert len(set(rows["image_id"].to_pylist())) == PHOTOS
    assert len(set(rows["identity"].to_pylist())) == 10
    assert rows["status"].to_pylist().count("ok") >= 0.98 * PHOTOS
    assert json.loads((line / "reports/validate/verdict.json").read_text())["success"] is True


@pytest.mark.timeout(900)
def test_embeddings_tell_people_apart(line: Path) -> None:
    rows = read_rows(line / "data" / "processed", PROCESSED_SCHEMA, ["identity", "embedding", "status"]).to_pylist()
    found = [(row["identity"], np.array(row["embedding"])) for row in rows if row["status"] == "ok"]
    same, different = [], []
    for (one, a), (other, b) in itertools.combinations(found, 2):
        (same if one == other else different).append(float(a @ b))
    print(f"same {np.mean(same):.3f}, different {np.mean(different):.3f}")
    assert np.mean(same) >= 0.60
    assert np.mean(different) <= 0.06


@pytest.mark.timeout(900)
def test_the_anchoring_stage_trains_on_them(line: Path) -> None:
    command(line, "validate-processed")
    command(line, "train-anchoring")
    assert (line / "models/anchoring/adapter.safetensors").is_file()
    with (line / "reports/train_anchoring/losses.csv").open() as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle)]
    assert len(losses) >= 1
    assert np.isfinite(losses).all()

"""Ingest, validate, preprocess and the anchoring stage on real photos with real networks."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
from tests.processes import dynamicid, git

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(900)]
PHOTOS = 100


@pytest.fixture(scope="module")
def line(checkout: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the checkout in which LFW photos have been ingested, validated and preprocessed."""
    root = tmp_path_factory.mktemp("real") / "line"
    git(checkout, "clone", "-q", str(checkout), str(root))
    settings = (
        "preprocess.insightface_name=buffalo_real_mini",
        f"preprocess.insightface_root={shared / 'weights' / 'insightface'}",
        f"preprocess.landmarker={{kind: onnx, path: {shared / 'weights/landmarks68/slim_160_latest.onnx'}, "
        "input_size: 160, box_scale: 1.4, mean: 127.0, scale: 127.0, channel_order: bgr}",
        "preprocess.domain=any",
        "base.domain=any",
        "train_anchoring.steps=20",
        "train_anchoring.batch_size=8",
        "train_anchoring.identity.weight=0",
    )
    changes = (word for setting in settings for word in ("--set", setting))
    dynamicid("configure", "--profile", "tiny", *changes, cwd=root)
    dynamicid("ingest", shared / "photos" / "lfw10_krasserm", "--out", "data/faces", cwd=root)
    dynamicid("validate", cwd=root)
    dynamicid("preprocess", cwd=root)
    return root


def test_every_photo_is_one_row(line: Path) -> None:
    rows = read_rows(line / "data" / "processed", PROCESSED_SCHEMA, ["image_id", "status", "identity"])
    assert rows.num_rows == PHOTOS
    assert len(set(rows["image_id"].to_pylist())) == PHOTOS
    assert len(set(rows["identity"].to_pylist())) == 10
    assert rows["status"].to_pylist().count("ok") >= 0.98 * PHOTOS
    assert json.loads((line / "reports/validate/verdict.json").read_text())["success"] is True


def test_embeddings_distinguish_people(line: Path) -> None:
    rows = read_rows(line / "data" / "processed", PROCESSED_SCHEMA, ["identity", "embedding", "status"]).to_pylist()
    found = [(row["identity"], np.array(row["embedding"])) for row in rows if row["status"] == "ok"]
    same, different = [], []
    for (one, a), (other, b) in itertools.combinations(found, 2):
        (same if one == other else different).append(float(a @ b))
    print(f"same {np.mean(same):.3f}, different {np.mean(different):.3f}")
    assert np.mean(same) >= 0.60
    assert np.mean(different) <= 0.06


def test_the_anchoring_stage_trains_on_them(line: Path) -> None:
    dynamicid("validate-processed", cwd=line)
    dynamicid("train-anchoring", cwd=line)
    assert (line / "models/anchoring/adapter.safetensors").is_file()
    with (line / "reports/train_anchoring/losses.csv").open() as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle)]
    assert len(losses) >= 1
    assert np.isfinite(losses).all()

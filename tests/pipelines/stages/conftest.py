"""A small processed dataset and random base models: enough to train both stages in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from insightface.utils.face_align import norm_crop

from model.face.face_geometry import CROP_TEMPLATE
from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES, compose
from model.foundation.random_models import save_random_models
from model.training.recognition_network import RecognitionNetwork
from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA
from tests.pipelines.stages.anchoring_places import inputs, outputs

SIZE = 64
_RECOGNISER = Path(__file__).parents[3] / "model/foundation/weights/insightface/models/tiny_faces/rec.onnx"


@cache
def _recogniser() -> RecognitionNetwork:
    return RecognitionNetwork(_RECOGNISER)


def _embedding(picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """What the conditioning recogniser says about the picture."""
    face = norm_crop(picture[..., ::-1], keypoints, _recogniser().side)
    with torch.no_grad():
        return _recogniser()(torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()


def _row(person: int, photo: int, split: str, *, known: bool) -> dict[str, object]:
    """A photo that shows nothing, with the geometry of a face somewhere in its middle."""
    rng = np.random.default_rng([person, photo])
    picture = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (SIZE, SIZE))
    shape = np.random.default_rng(person).uniform(0.3, 0.7, (68, 2)) + rng.normal(0, 0.01, (68, 2))
    keypoints = CROP_TEMPLATE * SIZE
    expression, pose = EXPRESSIONS[photo % 7], POSES[(person + photo) % 5]
    return {
        "image_id": f"{person:032d}{photo:032d}",
        "identity": f"person_{person}" if known else None,
        "file_name": f"{person}/{photo}.jpg",
        "split": split,
        "status": "ok",
        "image": cv2.imencode(".jpg", picture)[1].tobytes(),
        "bbox": [16.0, 12.0, 48.0, 56.0],
        "keypoints": keypoints.ravel().tolist(),
        "landmarks": (shape * SIZE).ravel().tolist(),
        "yaw": POSE_YAW[pose],
        "pitch": 0.0,
        "roll": 0.0,
        "embedding": _embedding(picture, keypoints).tolist(),
        "det_score": 0.9,
        "n_faces": 1,
        "sharpness": 50.0,
        "expression": expression,
        "prompt": f"a photo of a person in {['red', 'blue', 'green'][photo % 3]}",
        "face_prompt": compose(expression, pose),
    }


@dataclass(frozen=True)
class TrainingData:
    """Folders of a processed dataset and a parameter file for it."""

    processed: Path
    params: Path

    def read(self, *overrides: str) -> Params:
        return load_params(self.params, overrides)


@pytest.fixture(scope="session")
def write_processed() -> Callable[..., Path]:
    """Write processed rows: six people for training, one held out, five photos each, and rows nothing may read."""

    def write(folder: Path, *, known: bool = True) -> Path:
        folder.mkdir(parents=True)
        people = [(person, "train") for person in range(6)] + [(6, "val"), (7, "test")]
        rows = [_row(person, photo, split, known=known) for person, split in people for photo in range(5)]
        rows.append({**_row(0, 9, "train", known=known), "status": "rejected", "reason": "blurred", "image": None})
        for bucket in range(2):
            part = pa.Table.from_pylist(rows[bucket::2], schema=PROCESSED_SCHEMA)
            pq.write_table(part, folder / f"part-{bucket:05d}.parquet")
        return folder

    return write


@pytest.fixture(scope="session")
def training_data(
    project: Path, tmp_path_factory: pytest.TempPathFactory, write_processed: Callable[..., Path]
) -> TrainingData:
    """A dataset, random base models, and parameters that train both stages in a few steps."""
    import yaml

    root = tmp_path_factory.mktemp("training")
    models = save_random_models(root / "base", channels=(8, 16))
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    loop = {"start_from": None, "steps": 12, "warmup_steps": 2, "checkpoint_every": 2, "log_every": 3, "cache_batch": 8}
    tree["preprocess"]["insightface_root"] = str(project / "model/foundation/weights/insightface")
    tree["train_anchoring"] |= {**loop, "batch_size": 4, "probe_photos": 5, "learning_rate": 0.003}
    tree["train_anchoring"]["sizes"] |= {"lora_rank": 2, "reconfigurator_width": 32, "landmark_features": 16}
    tree["train_anchoring"]["sizes"] |= {"reconfigurator_heads": 2, "landmark_width": 2}
    tree["train_anchoring"]["identity"] |= {"faces": 2}
    tree["train_imr"] |= {**loop, "helpers": 3, "batch_size": 2, "ldc_every": 2, "ldc_targets": 4}
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(tree))
    return TrainingData(write_processed(root / "processed"), file)


@pytest.fixture
def kill_and_count(project: Path) -> Callable[[list[str], Path], int]:
    """Start a stage in a folder, kill it between two checkpoints, and return the last checkpoint's step."""

    def newest(folder: Path) -> int:
        return max((int(path.name[5:]) for path in folder.rglob("step-*")), default=0)

    def kill(command: list[str], folder: Path) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(project)},
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 300
        while not newest(folder / ".dynamicid") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1].decode()
        assert process.returncode == -signal.SIGKILL, errors[-3000:]
        assert not (folder / "models").exists()
        return newest(folder / ".dynamicid")

    return kill


@pytest.fixture(scope="module")
def trained(training_data: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of one uninterrupted run."""
    from pipelines.stages.train_anchoring import run

    root = tmp_path_factory.mktemp("anchoring")
    run(training_data.read(), inputs(training_data, root), outputs(root))
    return root

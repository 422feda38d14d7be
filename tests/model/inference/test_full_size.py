"""The method at the size of Stable Diffusion 1.5, with random weights, loads, trains and renders within 24 GB.

Ordinary runs leave it out; start it by `pytest -m full_size` (12 GB of memory, 6 GB of disk, some minutes).
"""

from __future__ import annotations

import csv
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.face.face import Face
from model.face.face_geometry import CROP_TEMPLATE
from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA

pytestmark = [pytest.mark.full_size, pytest.mark.timeout(5400)]

LIMIT = 24e9
SIZE = 512


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    """Use all cores."""
    import os

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def params(project: Path, tmp_path_factory: pytest.TempPathFactory, threads: None) -> Params:
    """The profile `sd15` with full-size models, changed for a machine without a GPU."""
    from benchmarks.full_size_models import save_full_size

    models = save_full_size(tmp_path_factory.mktemp("models"))
    gc.collect()
    changes = {
        "base.pipeline": models.pipeline,
        "base.image_encoder": models.image_encoder,
        "base.dtype": "float32",
        "train_anchoring.mixed_precision": "no",
        "train_anchoring.steps": 2,
        "train_anchoring.warmup_steps": 0,
        "train_anchoring.batch_size": 1,
        "train_anchoring.cache_batch": 1,
        "train_anchoring.probe_photos": 1,
        "train_anchoring.log_every": 1,
    }
    return load_params(project / "profiles" / "sd15.yaml", [f"{key}={value}" for key, value in changes.items()])


def photo(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    picture = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (SIZE, SIZE))
    embedding = rng.normal(size=512)
    return {
        "image_id": f"{number:064d}",
        "identity": "person",
        "file_name": f"{number}.jpg",
        "split": "train",
        "status": "ok",
        "image": cv2.imencode(".jpg", picture)[1].tobytes(),
        "bbox": [128.0, 96.0, 384.0, 448.0],
        "keypoints": (CROP_TEMPLATE * SIZE).ravel().tolist(),
        "landmarks": (rng.uniform(0.3, 0.7, (68, 2)) * SIZE).ravel().tolist(),
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "embedding": (embedding / np.linalg.norm(embedding)).tolist(),
        "det_score": 0.9,
        "n_faces": 1,
        "sharpness": 50.0,
        "expression": "neutral",
        "prompt": "a photo of a person",
        "face_prompt": "neutral, front",
    }


@pytest.fixture(scope="module")
def anchored(params: Params, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder in which the anchoring stage has run, and its peak memory."""
    import torch

    from benchmarks.measure import PeakMemory
    from pipelines.stages.train_anchoring import Inputs, Outputs, run

    root = tmp_path_factory.mktemp("anchoring")
    (root / "processed").mkdir()
    rows = pa.Table.from_pylist([photo(1), photo(2)], schema=PROCESSED_SCHEMA)
    pq.write_table(rows, root / "processed" / "part-00000.parquet")
    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    run(
        params,
        Inputs(processed=root / "processed", state=root / "state"),
        Outputs(root / "adapter", root / "losses.csv", root / "metrics.json"),
    )
    return root, memory.bytes()


def test_anchoring_takes_two_steps(anchored: tuple[Path, int]) -> None:
    from safetensors.torch import load_file

    root, peak = anchored
    print(f"anchoring: peak memory {peak / 1e9:.1f} GB")
    with (root / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row[name])) for row in rows for name in ("loss", "probe"))
    weights = load_file(root / "adapter" / "adapter.safetensors")
    ups = {name: value for name, value in weights.items() if name.endswith("_lora.up.weight")}
    # 16 self- and 16 cross-attentions with four LoRAs each, of rank 128, zero before the first step.
    assert len(ups) == 128
    assert {value.shape[1] for value in ups.values()} == {128}
    assert all(bool(value.any()) for value in ups.values())
    assert peak < LIMIT


def test_a_picture_of_512_px_is_rendered(params: Params, anchored: tuple[Path, int], faces: list[Face]) -> None:
    import torch

    from benchmarks.measure import PeakMemory
    from model.inference.pipeline import DynamicIDPipeline

    gc.collect()
    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    pipe = DynamicIDPipeline.from_folders(
        Path(params.base.pipeline), Path(params.base.image_encoder), anchored[0] / "adapter", dtype=params.base.dtype
    )
    pipe.fold_lora()
    generator = torch.Generator().manual_seed(0)
    picture = pipe("a photo of a person", faces=faces[:1], num_inference_steps=2, generator=generator).images[0]
    peak = memory.bytes()
    print(f"a picture: peak memory {peak / 1e9:.1f} GB")
    assert picture.size == (SIZE, SIZE)
    assert np.asarray(picture).std() > 1
    assert peak < LIMIT

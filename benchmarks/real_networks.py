"""The real photos and networks of `../shared`, and rows of a dataset made from files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipelines.core.row_schemas import DATASET_SCHEMA

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"
TINY = PROJECT / "profiles" / "tiny.yaml"


def real_networks(shared: Path) -> list[str]:
    """Return the changes of the tiny profile that make `preprocess` use the networks in `shared`/weights."""
    weights = shared / "weights"
    return [
        "preprocess.insightface_name=buffalo_real_mini",
        f"preprocess.insightface_root={weights / 'insightface'}",
        "preprocess.det_sizes=[]",
        f"preprocess.landmarker.path={weights / 'landmarks68' / 'slim_160_latest.onnx'}",
        "preprocess.landmarker.input_size=160",
        "preprocess.landmarker.channel_order=bgr",
        "preprocess.captions.sources=[sidecar]",
    ]


def dataset_row(file_name: str, data: bytes, identity: str | None = None) -> dict[str, object]:
    """Return a row of `data/faces` for the bytes of a photo; other columns are null."""
    image_id = hashlib.sha256(data).hexdigest()
    values = {"image_id": image_id, "identity": identity, "file_name": file_name, "image": data, "n_bytes": len(data)}
    return dict.fromkeys(DATASET_SCHEMA.names) | values

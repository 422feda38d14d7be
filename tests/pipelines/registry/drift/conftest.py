"""Dataset versions made of numbers: an embedding per person, photos around this embedding, small grey pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA

Write = Callable[..., None]


def _jpeg(level: float, rng: np.random.Generator) -> bytes:
    pixels = np.clip(rng.normal((level + rng.normal(0, 0.08)) * 255, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _rows(name: str, people: int, *, brightness: float, shift: float, side: int, rejected: float) -> list[dict]:
    """Return six photos each of `people` people; the same arguments give the same photos."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    rows = []
    for person in range(people):
        centre = rng.normal(size=512)
        centre[:8] += shift
        for photo in range(6):
            embedding = centre + rng.normal(size=512) * 0.5
            ok = rng.random() >= rejected
            rows.append(
                {
                    "image_id": hashlib.sha256(f"{name}-{person}-{photo}".encode()).hexdigest(),
                    "identity": f"{name}-{person}",
                    "file_name": f"{person}/{photo}.jpg",
                    "width": side,
                    "height": int(side * rng.uniform(1.0, 1.4)),
                    "split": "train",
                    "status": "ok" if ok else "rejected",
                    "reason": None if ok else "no_face",
                    "image": _jpeg(brightness, rng) if ok else None,
                    "yaw": float(rng.normal(0, 20)) if ok else None,
                    "pitch": float(rng.normal(0, 8)) if ok else None,
                    "embedding": (embedding / np.linalg.norm(embedding)).tolist() if ok else None,
                    "expression": str(rng.choice(["neutral", "happy", "sad"])) if ok else None,
                }
            )
    return rows


@pytest.fixture(scope="session")
def write_version() -> Write:
    """Write a version as `faces` and `processed`: (folder, part, …) with part = {name: how many people}."""

    def write(
        folder: Path,
        parts: dict[str, int],
        *,
        brightness: float = 0.5,
        shift: float = 0.0,
        side: int = 256,
        rejected: float = 0.0,
        changed: str = "",
    ) -> None:
        """`brightness` … apply to the part called `changed`, or to every part where it is empty."""
        rows: list[dict] = []
        for name, people in parts.items():
            here = changed in ("", name)
            rows += _rows(
                name,
                people,
                brightness=brightness if here else 0.5,
                shift=shift if here else 0.0,
                side=side if here else 256,
                rejected=rejected if here else 0.0,
            )
        for kind, schema in (("faces", DATASET_SCHEMA), ("processed", PROCESSED_SCHEMA)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist([{key: row.get(key) for key in schema.names} for row in rows], schema)
            pq.write_table(table, folder / kind / "part-0.parquet")

    return write

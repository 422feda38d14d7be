"""Tell drawings from photographs by how brightness changes in a picture; no network, and nothing trained.

In a drawing, an edge is one or two pixels wide between areas of one colour. In a photograph, brightness also changes
between edges: skin, cloth, noise. Figures: docs/log/drawing-or-photograph.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
import pyarrow.parquet as pq

from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.weights.domains import DRAWN, PHOTOGRAPH, UNKNOWN
from pipelines.data.faces.decode import Undecodable, decode

# Bounds of `unevenness`: at most the first is a drawing, at least the second a photograph.
_DRAWN_AT_MOST, _PHOTOGRAPH_AT_LEAST = 0.56, 0.64
_SIDE, _SAMPLE = 224, 64
# Of brightness on a scale whose noise is the same everywhere (the root of the grey value, 0 to 255).
_CONTRAST, _FLAT, _BLACK, _WHITE = 8.0, 2.5, 40.0, 250.0
_FEW = 100
_NEAR, _WIDE = np.ones((3, 3), np.uint8), np.ones((7, 7), np.uint8)

Item = TypeVar("Item")
Measured = Literal["drawn", "photograph", "unknown"]


def unevenness(image: np.ndarray) -> float | None:
    """Return how unevenly brightness changes in a picture (H, W, 3) uint8 RGB, in [-1, 1]; None where nothing does.

    Of the windows of 7 x 7 pixels with contrast, none of which is black or white: the share in which the middle 3 x 3
    pixels hold 0.2 to 0.7 of the contrast, less the share in which they hold none.
    """
    factor = _SIDE / max(image.shape[:2])
    if factor < 1:
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    grey = np.sqrt(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32) * 255)
    high, low = cv2.dilate(grey, _WIDE), cv2.erode(grey, _WIDE)
    wide, near = high - low, cv2.dilate(grey, _NEAR) - cv2.erode(grey, _NEAR)
    counted = (wide > _CONTRAST) & (high < _WHITE) & (low > _BLACK)
    if counted.sum() < _FEW:
        return None
    near, share = near[counted], near[counted] / wide[counted]
    return float(np.mean((share > 0.2) & (share <= 0.7)) - np.mean(near <= _FLAT))


def domain_of_picture(image: np.ndarray) -> Measured:
    """Return what a picture (H, W, 3) uint8 RGB is; `unknown` in doubt. Best for a face with little around it."""
    value = unevenness(image)
    if value is None or _DRAWN_AT_MOST < value < _PHOTOGRAPH_AT_LEAST:
        return UNKNOWN
    return DRAWN if value <= _DRAWN_AT_MOST else PHOTOGRAPH


def around_face(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the part of a picture (H, W, 3) around a face box (x0, y0, x1, y1), 1.6 times as wide."""
    x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 0.8 * max(box[2] - box[0], box[3] - box[1])
    part = image[max(0, int(y - half)) : max(1, int(y + half)), max(0, int(x - half)) : max(1, int(x + half))]
    return part if part.size else image


def measure_sample(files: Iterable[bytes], max_pixels: int) -> Counter[str]:
    """Return how many of these encoded pictures are drawn, photographs and unknown; damaged ones are not counted."""
    counts: Counter[str] = Counter()
    for data in files:
        try:
            photo = decode(data, max_pixels=max_pixels, min_side=16, working_side=_SIDE)
        except Undecodable:
            continue
        counts[domain_of_picture(photo.image)] += 1
    return counts


def sampled(items: list[str]) -> list[bytes]:
    """Return the contents of at most 64 files, evenly from the list."""
    return [Path(path).read_bytes() for path in _evenly(items, _SAMPLE)]


def domains_of_dataset(faces: Path, max_pixels: int) -> tuple[Counter[str], Counter[str]]:
    """Return the domains that rows of a dataset state (count by domain), and those of at most 64 others, measured."""
    dataset = open_rows(faces, DATASET_SCHEMA)
    stated: Counter[str] = Counter()
    rows = 0
    for batch in dataset.to_batches(columns=["domain"]):
        stated.update(value for value in batch["domain"].to_pylist() if value is not None)
        rows += batch.num_rows
    open_ended = rows - stated.total()
    return stated, measure_sample(_pictures(dataset.files, _SAMPLE), max_pixels) if open_ended else Counter()


def some_pictures(faces: Path, count: int) -> list[bytes]:
    """Return about `count` encoded pictures of a dataset; none where there is no dataset."""
    shards = sorted(map(str, faces.glob("*.parquet")))
    return list(_pictures(shards, count, stated=True))[:count] if shards else []


def _pictures(shards: list[str], count: int, *, stated: bool = False) -> Iterable[bytes]:
    """Yield about `count` pictures from a few row groups of all shards; by default of rows that state no domain."""
    groups = [(shard, group) for shard in shards for group in range(pq.read_metadata(shard).num_row_groups)]
    chosen = _evenly(groups, 8)
    wanted = -(-count // max(1, len(chosen)))
    for shard, group in chosen:
        with pq.ParquetFile(shard) as file:
            names = [name for name in ("image", "domain") if name in file.schema_arrow.names]
            step = max(1, file.metadata.row_group(group).num_rows // wanted)
            for batch in file.iter_batches(batch_size=step, row_groups=[group], columns=names):
                if stated or "domain" not in names or batch["domain"][0].as_py() is None:
                    yield batch["image"][0].as_py() or b""


def _evenly(items: list[Item], count: int) -> list[Item]:
    return [items[len(items) * place // count] for place in range(count)] if len(items) > count else items

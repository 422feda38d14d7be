"""Time the start of a training and measure its memory: labels and keys alone, and with every picture read.

    python benchmarks/training_start.py --photos 35000

Noise stands for the pictures. Both ways run in turn, each in a process of its own: with the keys that preprocessing
wrote, and with rows that have none, as those of an older format. Measured is `photos_to_train_on`: checks, and the
photos of splits train and val. The last line is JSON: seconds, processor seconds, and peak memory in MB above that of
the imports; and `per_350000`, the same if all grows with the number of photos.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa

from benchmarks.real_networks import TINY

# Rows of a file, as of a bucket of `sd15`.
ROWS = 1367
WAYS = {"with keys": True, "every picture": False}


def write_rows(folder: Path, photos: int, picture_bytes: int, *, keys: bool) -> None:
    """Write `photos` accepted rows as preprocessing does; without `keys`, as an older version of it did."""
    from pipelines.core.row_schemas import CONTENT, PROCESSED_SCHEMA, photo_keys
    from pipelines.data.preprocessing.files import write_bucket_file

    folder.mkdir(parents=True)
    for start in range(0, photos, ROWS):
        count = min(ROWS, photos - start)
        rng = np.random.default_rng(start)
        numbers = range(start, start + count)
        sizes = {"bbox": 4, "keypoints": 10, "landmarks": 136, "embedding": 512}
        columns = {
            "image_id": [f"{number:064x}" for number in numbers],
            "identity": [f"person {number // 35}" for number in numbers],
            "file_name": [f"person {number // 35}/{number}.jpg" for number in numbers],
            "split": ["val" if number // 35 % 100 == 0 else "train" for number in numbers],
            "status": ["ok"] * count,
            "image": [rng.bytes(picture_bytes) for _ in numbers],
            **{name: list(rng.random((count, size), dtype=np.float32)) for name, size in sizes.items()},
            "expression": [("happy", "neutral", None)[number % 3] for number in numbers],
            "pose": [("front", "left")[number % 2] for number in numbers],
            "pose_source": ["landmarks"] * count,
            "prompt": [f"a photo of a person in a room with {number} books on the shelf" for number in numbers],
            "consent": ["granted"] * count,
            "domain": ["drawn"] * count,
        }
        rows = pa.Table.from_pydict(
            {field.name: pa.array(columns.get(field.name, [None] * count), field.type) for field in PROCESSED_SCHEMA}
        )
        if keys:
            made = pa.array([key.hex() for key in photo_keys(rows.select(CONTENT))])
            rows = rows.set_column(rows.schema.get_field_index("photo_key"), "photo_key", made)
        write_bucket_file(rows, folder / f"part-{start // ROWS:05d}.parquet")


def measured(folder: Path) -> dict[str, float]:
    """Return what one start costs, in this process."""
    from benchmarks.measure import PeakMemory
    from pipelines.core.params import load_params
    from pipelines.stages.training_stage import photos_to_train_on

    params = load_params(TINY, ["base.domain=drawn"])
    import torch

    import pipelines.data.training_data  # noqa: F401 (not part of what is measured)

    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    before, wall, processor = memory.bytes(), time.perf_counter(), time.process_time()
    photos, _ = photos_to_train_on(params, folder)
    return {
        "photos": sum(map(len, photos.values())),
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_mb": round((memory.bytes() - before) / 1e6),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=int, default=35000)
    parser.add_argument("--picture-bytes", type=int, default=8000, help="bytes of a picture; 512 px: some 50,000")
    options = parser.parse_args(argv)
    report = {}
    with tempfile.TemporaryDirectory() as temporary:
        for way, keys in WAYS.items():
            folder = Path(temporary) / str(keys)
            write_rows(folder, options.photos, options.picture_bytes, keys=keys)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                report[way] = pool.apply(measured, (folder,))
            print(way, report[way], file=sys.stderr)
    scale = 350_000 / options.photos
    grown = {way: {name: round(value * scale, 1) for name, value in found.items()} for way, found in report.items()}
    print(json.dumps({**report, "per_350000": grown, "picture_bytes": options.picture_bytes}))


if __name__ == "__main__":
    main()

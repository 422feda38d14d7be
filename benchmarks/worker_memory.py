"""Peak memory of one worker process: on photos of 10,000 x 10,000 pixels, and on thousands of small ones.

    python benchmarks/worker_memory.py --side 10000 --small 5000

Every case runs in a process of its own that does what a worker does with a slice (`look_at_slice`). Peaks are what the
kernel saw (VmHWM) before the case (networks loaded and warm) and after it, in MB. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"
CASES = ("jpeg", "progressive", "png", "png_alpha_rotated", "png_16_bit", "small")
SMALL_SIDE = 200


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def big_photo(case: str, side: int, face: Path) -> bytes:
    """Return the file of a face enlarged to `side` x `side` pixels."""
    from PIL import Image

    picture = Image.open(face).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if case in ("jpeg", "progressive"):
        picture.save(buffer, "JPEG", quality=90, progressive=case == "progressive", subsampling=0)
    elif case == "png":
        picture.save(buffer, "PNG", compress_level=1)
    elif case == "png_alpha_rotated":
        exif = Image.Exif()
        exif[0x0112] = 3
        picture.putalpha(255)
        picture.transpose(Image.Transpose.ROTATE_180).save(buffer, "PNG", compress_level=1, exif=exif)
    else:
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_photos(case: str, side: int, small: int, face: Path, faces: Path) -> None:
    from PIL import Image

    from pipelines.core.records import DATASET_SCHEMA
    from pipelines.data.ingest.shards import ShardWriter

    def row(name: str, data: bytes) -> dict[str, object]:
        known = {"image_id": hashlib.sha256(data).hexdigest(), "file_name": name, "image": data, "n_bytes": len(data)}
        return dict.fromkeys(DATASET_SCHEMA.names) | known

    writer = ShardWriter(faces, 256 * 2**20)
    if case != "small":
        writer.add(row("big", big_photo(case, side, face)))
    else:
        picture = Image.open(face).convert("RGB").resize((SMALL_SIDE, SMALL_SIDE))
        for number in range(small):
            buffer = io.BytesIO()
            picture.rotate(number % 30 - 15).save(buffer, "JPEG", quality=90, comment=str(number).encode())
            writer.add(row(f"{number}.jpg", buffer.getvalue()))
    writer.close()


def work(case: str, faces: Path, side: int, shared: Path) -> None:
    """Do a worker's work on the slices of a dataset and print its peaks."""
    from pipelines.core.params import load_params
    from pipelines.data.faces.version import analyser_version
    from pipelines.data.preprocessing.slices import cut_slices
    from pipelines.data.preprocessing.work import Job, look_at_slice
    from pipelines.data.preprocessing.worker_analyser import worker_analyser

    weights = shared / "weights"
    params = load_params(
        PROJECT / "profiles" / "tiny.yaml",
        [
            "preprocess.insightface_name=buffalo_real_mini",
            f"preprocess.insightface_root={weights / 'insightface'}",
            f"preprocess.landmarker.path={weights / 'landmarks68' / 'slim_160_latest.onnx'}",
            "preprocess.landmarker.input_size=160",
            "preprocess.landmarker.channel_order=bgr",
            "preprocess.captions.sources=[sidecar]",
            f"preprocess.max_pixels={side * side}",
        ],
    ).preprocess
    state = faces.parent / "state"
    state.mkdir()
    job = Job(params, analyser_version(params), state)
    worker_analyser(params, None, None)
    ready, started = peak_mb(), time.perf_counter()
    outcomes: dict[str, int] = {}
    for piece in cut_slices(sorted(faces.glob("*.parquet")), params.slice_photos):
        for outcome, count in look_at_slice(piece, job, {}).outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    seconds = time.perf_counter() - started
    told = {"ready_mb": round(ready), "peak_mb": round(peak_mb()), "seconds": round(seconds, 2), "outcomes": outcomes}
    print(json.dumps({"case": case, **told}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--small", type=int, default=5_000)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--step", nargs=2, metavar=("write|work", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        faces = Path(options.step[1])
        if options.step[0] == "write":
            face = next((options.shared / "photos" / "lfw10_krasserm" / "Tony_Blair").glob("*.jpg"))
            write_photos(options.cases[0], options.side, options.small, face, faces)
        else:
            work(options.cases[0], faces, options.side, options.shared)
        return
    results = []
    for case in options.cases:
        with tempfile.TemporaryDirectory(prefix="dynamicid-memory-") as folder:
            same = ["--side", str(options.side), "--small", str(options.small), "--shared", str(options.shared)]
            for step in ("write", "work"):
                command = [sys.executable, __file__, *same, "--cases", case, "--step", step, f"{folder}/faces"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(results[-1], file=sys.stderr)
    print(json.dumps(results))


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()

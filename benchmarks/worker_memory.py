"""Measure the peak memory of one worker process, on photos of 10,000 x 10,000 pixels and on thousands of small ones.

    python benchmarks/worker_memory.py --side 10000 --small 5000

Every case runs in a separate process, which treats slices as a worker does (`analyse_slice`). Peaks are VmHWM in MB,
before the case (networks are loaded and warm) and after it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.real_networks import PROJECT, SHARED, TINY, dataset_row, real_networks

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

    from pipelines.data.ingest.shards import ShardWriter

    writer = ShardWriter(faces, 256 * 2**20)
    if case != "small":
        writer.add(dataset_row("big", big_photo(case, side, face)))
    else:
        picture = Image.open(face).convert("RGB").resize((SMALL_SIDE, SMALL_SIDE))
        for number in range(small):
            buffer = io.BytesIO()
            picture.rotate(number % 30 - 15).save(buffer, "JPEG", quality=90, comment=str(number).encode())
            writer.add(dataset_row(f"{number}.jpg", buffer.getvalue()))
    writer.close()


def work(case: str, faces: Path, side: int, shared: Path) -> None:
    """Do a worker's work on the slices of a dataset and print its peaks."""
    from pipelines.core.params import load_params
    from pipelines.data.faces.version import analyser_version
    from pipelines.data.preprocessing.slices import cut_slices
    from pipelines.data.preprocessing.tasks import Job, analyse_slice
    from pipelines.data.preprocessing.worker_analyser import worker_analyser

    changes = [*real_networks(shared), "preprocess.det_sizes=[128]", f"preprocess.max_pixels={side * side}"]
    params = load_params(TINY, changes).preprocess
    state = faces.parent / "state"
    state.mkdir()
    job = Job(params, analyser_version(params), state)
    worker_analyser(params, None, None)
    ready, started = peak_mb(), time.perf_counter()
    outcomes: Counter[str] = Counter()
    for piece in cut_slices(sorted(faces.glob("*.parquet")), params.slice_photos):
        outcomes.update(analyse_slice(piece, job, {}).outcomes)
    seconds = time.perf_counter() - started
    peaks = {"ready_mb": round(ready), "peak_mb": round(peak_mb()), "seconds": round(seconds, 2)}
    print(json.dumps({"case": case, **peaks, "outcomes": outcomes}))


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
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    for case in options.cases:
        with tempfile.TemporaryDirectory(prefix="dynamicid-memory-") as folder:
            same = ["--side", str(options.side), "--small", str(options.small), "--shared", str(options.shared)]
            for step in ("write", "work"):
                command = [sys.executable, __file__, *same, "--cases", case, "--step", step, f"{folder}/faces"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(results[-1], file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

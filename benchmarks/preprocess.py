"""Compare preprocessing on Spark with a plain loop: photos per second, efficiency, and time by part.

    python benchmarks/preprocess.py --photos 8000

The plain loop runs the same analysers on about 1,000 of the photos in one process and writes nothing. Efficiency is the
rate of the whole stage on `local[2]`, start and writing included, divided by twice the loop's rate, loading excluded.
Processor time is also measured, since other programs disturb it less. The photos are real ones or procedural people
(`--drawn`), and variants of them (cropped, mirrored, recompressed).

The last line is JSON: `efficiency`, `photos_per_s`, `single_photos_per_s`, `parts` (seconds per photo by part).
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
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
from PIL import Image

from benchmarks.real_networks import PROJECT, SHARED, TINY, dataset_row, real_networks
from pipelines.core.params import load_params
from pipelines.core.sections.data import Preprocess

WORKERS = 2
# The plain loop gets about this many photos of the dataset, since its rate does not depend on their number.
LOOP_PHOTOS = 1000
BATCH = 32
POLL_SECONDS = 0.25


def varied(files: list[Path], count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, person and bytes of `count` photos: the files, then variants of them."""
    for number in range(count):
        file = files[number % len(files)]
        if number < len(files):
            yield file.name, file.parent.name, file.read_bytes()
            continue
        rng = np.random.default_rng(number)
        picture = Image.open(file).convert("RGB")
        left, top, right, bottom = rng.integers(0, max(2, min(picture.size) // 24), 4)
        picture = picture.crop((left, top, picture.width - right, picture.height - bottom))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(80, 96)))
        yield f"{number}.jpg", file.parent.name, buffer.getvalue()


def procedural(count: int, drawn: int | None = None) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, person and bytes of `count` photos: `drawn` ones (None: all), then variants of them."""
    from pipelines.data.synthetic.dataset import write_dataset as draw

    with tempfile.TemporaryDirectory() as folder:
        draw(max(1, min(count, drawn or count) // 35), Path(folder) / "people", workers=WORKERS)
        files = sorted(file for file in Path(folder).rglob("*.*") if file.suffix in (".jpg", ".png"))
        yield from varied(files[:count], count)


def write_dataset(photos: Iterator[tuple[str, str, bytes]], folder: Path) -> None:
    from pipelines.data.ingest.shards import ShardWriter

    writer = ShardWriter(folder, 128 * 2**20)
    for name, person, data in photos:
        writer.add(dataset_row(f"{person}/{name}", data, person))
    writer.close()


def plain_loop(faces: Path, params: Preprocess, every: int, phase: int) -> dict[str, object]:
    """Analyse every `every`-th photo, from number `phase` on; return photos, seconds, and processor seconds by part."""
    import cv2
    import pyarrow.parquet as pq

    from pipelines.data.faces.analysis import load_analyser
    from pipelines.data.faces.timing import StepTimes

    cv2.setNumThreads(1)
    analyser = load_analyser(params)
    photos = [
        row
        for shard in sorted(faces.glob("*.parquet"))
        for row in pq.read_table(shard, columns=["image"])["image"].to_pylist()
    ][phase::every]
    analyser.analyse(photos[:BATCH])
    analyser.times = StepTimes(time.thread_time)
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(photos), BATCH):
        analyser.analyse(photos[start : start + BATCH])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"photos": len(photos), "wall": wall, "cpu": cpu, "parts": analyser.times.seconds}


def spark_stage(faces: Path, changes: list[str], folder: Path) -> dict[str, object]:
    """Run the stage's command; return parts of its report, seconds, and processor seconds of all its processes."""
    command = [sys.executable, "-m", "pipelines.cli", "preprocess", str(faces), "--out", str(folder / "processed")]
    command += ["--params", str(TINY), *(word for change in changes for word in ("--set", change))]
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    used: dict[tuple[int, float], float] = {}
    while process.poll() is None:
        used.update(processor_seconds(process.pid))
        time.sleep(POLL_SECONDS)
    wall = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"preprocess ended with {process.returncode}")
    report = json.loads(process.stdout.read()) if process.stdout else {}
    figures = {"photos": report["rows"], "parts": report["seconds"], "ok": report["ok"]}
    return {**figures, "wall": wall, "cpu": sum(used.values())}


def processor_seconds(pid: int) -> Iterator[tuple[tuple[int, float], float]]:
    """Yield process (id, start) and processor seconds of a process and its descendants."""
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            times = process.cpu_times()
            yield (process.pid, process.create_time()), times.user + times.system
    except psutil.NoSuchProcess:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--drawn", action="store_true", help="procedural people instead of real photos")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real photos and networks")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    changes = [*real_networks(options.shared), f"preprocess.master=local[{WORKERS}]"]
    changes += ["preprocess.max_failed_share=1.0", *options.changes]
    params = load_params(TINY, changes).preprocess
    with tempfile.TemporaryDirectory(prefix="dynamicid-benchmark-") as scratch:
        folder = Path(scratch)
        files = sorted((options.shared / "photos").rglob("*.jpg"))
        write_dataset(procedural(options.photos) if options.drawn else varied(files, options.photos), folder / "faces")
        every = max(1, options.photos // LOOP_PHOTOS)
        # The loop runs half before and half after the stage, because the speed of a machine varies.
        before = plain_loop(folder / "faces", params, 2 * every, 0)
        stage = spark_stage(folder / "faces", changes, folder)
        after = plain_loop(folder / "faces", params, 2 * every, every)
    print(json.dumps(result(before, after, stage)))


def result(before: dict, after: dict, stage: dict) -> dict[str, object]:
    looped = {key: before[key] + after[key] for key in ("photos", "wall", "cpu")}
    single = looped["photos"] / looped["wall"]
    rate = stage["photos"] / stage["wall"]
    parts = {part: seconds / stage["photos"] for part, seconds in stage["parts"].items()}
    single_parts = {part: (before["parts"][part] + after["parts"][part]) / looped["photos"] for part in before["parts"]}
    spark = WORKERS * stage["wall"] / stage["photos"] - sum(parts.values())
    single_cpu, stage_cpu = looped["cpu"] / looped["photos"], stage["cpu"] / stage["photos"]
    return {
        "photos": stage["photos"],
        "ok": stage["ok"],
        "efficiency": round(rate / (WORKERS * single), 4),
        "photos_per_s": round(rate, 2),
        "single_photos_per_s": round(single, 2),
        "efficiency_cpu": round(single_cpu / stage_cpu, 4),
        "cpu_s_per_photo": round(stage_cpu, 5),
        "single_cpu_s_per_photo": round(single_cpu, 5),
        "parts": {part: round(seconds, 5) for part, seconds in {**parts, "spark": spark}.items()},
        "single_cpu_parts": {part: round(seconds, 5) for part, seconds in single_parts.items()},
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()

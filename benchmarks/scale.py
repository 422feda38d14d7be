"""Measure what grows with the number of photos: seconds, processor seconds and peak memory of each step.

    python benchmarks/scale.py --photos 350000 --drawn 3500
    python benchmarks/scale.py --rows 10000000
    python benchmarks/scale.py --faces 100000 --dimensions 512

`--photos`: from a folder of small pictures, variants of `--drawn` ones with bytes of their own, to the first step of a
training, by the commands of a user. `--rows`: both validations, copies, split and drift of rows without
pictures, of a quarter of the rows and of all: `exponent` is 1 where a step grows as the rows do. `--faces`: grouping of
embeddings with planted people, with exact neighbours (up to EXACT_ROWS) and in parts, their pairwise F1, and processor
seconds of both ways to find neighbours.

Memory is that of all processes of a step, Java's and Spark's workers' included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from benchmarks.preprocess import procedural, processor_seconds
from benchmarks.real_networks import PROJECT, TINY

if TYPE_CHECKING:
    import pyarrow as pa

POLL_SECONDS = 0.25
PHOTOS_OF_PERSON, COPIES, ROWS_OF_SHARD = 35, 0.05, 50_000
STEPS = ("validate", "validate_processed", "copies", "split", "drift")
WIDTH, SIDE = 512, 64
# As `preprocess` writes processed rows, and of a size of rows without pictures.
ROW_GROUPS = {"processed": 64, "faces": 8192}


def measured(name: str, command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command in `folder`; return its seconds, processor seconds and peak memory in MB, with what it printed."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    used: dict[tuple[int, float], float] = {}
    peak = 0
    while process.poll() is None:
        used.update(processor_seconds(process.pid))
        peak = max(peak, memory_of(process.pid))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    figures = {
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(sum(used.values()), 1),
        "peak_mb": round(peak / 1e6),
    }
    print(f"{name}: {figures}", file=sys.stderr)
    printed = process.stdout.read().strip().splitlines() if process.stdout else []
    return {**figures, "printed": printed[-1] if printed else ""}


def memory_of(pid: int) -> int:
    """Return the bytes in memory of a process and its descendants."""
    try:
        root = psutil.Process(pid)
        return sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def of_photos(folder: Path, photos: int, drawn: int, changes: list[str]) -> dict[str, Any]:
    """Return the figures of each stage, from a folder of photos to the first step of a training."""
    source = folder / "photos"
    for name, person, data in procedural(photos, drawn):
        file = source / person / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    one_step = ["train_anchoring.steps=1", "train_anchoring.samples_every=0"]
    options = ["--params", str(TINY), *(word for change in [*one_step, *changes] for word in ("--set", change))]
    stages = {
        "ingest": ["ingest", str(source), "--no-version", "--consent", "granted"],
        "validate": ["validate"],
        "preprocess": ["preprocess"],
        "validate_processed": ["validate-processed"],
        "first_step": ["train-anchoring"],
    }
    report = {}
    for name, words in stages.items():
        report[name] = measured(name, [sys.executable, "-m", "pipelines.cli", *words, *options], folder)
        report[name].pop("printed")
        report[name]["ms_a_photo"] = round(report[name]["processor_seconds"] / photos * 1000, 3)
    return report


def write_rows(folder: Path, rows: int) -> None:
    """Write a dataset and its processed rows without pictures but one: one in twenty rows is a copy of another."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA

    for name in ("faces", "processed"):
        (folder / name).mkdir(parents=True)
    picture = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(picture, "JPEG")
    for start in range(0, rows, ROWS_OF_SHARD):
        rng = np.random.default_rng(start)
        numbers = np.arange(start, min(start + ROWS_OF_SHARD, rows))
        photo = np.where(rng.random(len(numbers)) < COPIES, rng.integers(0, rows, len(numbers)), numbers)
        values = {
            "image_id": [hashlib.sha256(str(one).encode()).hexdigest() for one in photo],
            "identity": [f"person {one // PHOTOS_OF_PERSON}" for one in numbers],
            "file_name": [f"person {one // PHOTOS_OF_PERSON}/{one}.jpg" for one in numbers],
            "format": ["JPEG"] * len(numbers),
            "width": rng.integers(200, 2000, len(numbers)),
            "height": rng.integers(200, 2000, len(numbers)),
            "n_bytes": rng.integers(10_000, 100_000, len(numbers)),
            "prompt": ["a person"] * len(numbers),
            "consent": ["granted"] * len(numbers),
            "split": ["train" if one // PHOTOS_OF_PERSON % 8 else "test" for one in numbers],
            "status": ["ok"] * len(numbers),
            "yaw": rng.normal(0, 20, len(numbers)),
            "pitch": rng.normal(0, 10, len(numbers)),
            "roll": rng.normal(0, 5, len(numbers)),
            "expression": rng.choice(["neutral", "happy"], len(numbers)),
            "face_prompt": ["a face"] * len(numbers),
            "photo_key": ["0" * 64] * len(numbers),
            **points_of(numbers),
            "image": [picture.getvalue() if one == 0 else None for one in numbers],
        }
        for name, schema in (("faces", DATASET_SCHEMA), ("processed", PROCESSED_SCHEMA)):
            columns = [column_of(values.get(field.name, [None] * len(numbers)), field.type) for field in schema]
            file = folder / name / f"part-{start // ROWS_OF_SHARD:05d}.parquet"
            pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, row_group_size=ROW_GROUPS[name])


def column_of(values: Any, kind: pa.DataType) -> pa.Array:
    """Return a column of a list, or of lists from an array (N, K)."""
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(offsets, values.ravel())
    return pa.array(values, kind)


def points_of(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Return the lists of processed rows: embeddings (N, 512) of the people, all different, and points of a face."""
    people, each = np.unique(numbers // PHOTOS_OF_PERSON, return_inverse=True)
    signs = np.stack([np.random.default_rng(person).integers(0, 2, WIDTH) for person in people]) * 2.0 - 1
    points = {name: np.linspace(8, 56, 2 * count) for name, count in (("landmarks", 68), ("keypoints", 5), ("bbox", 2))}
    return {
        "embedding": (signs / math.sqrt(WIDTH)).astype(np.float32)[each],
        **{name: np.tile(row.astype(np.float32), (len(numbers), 1)) for name, row in points.items()},
    }


def step(name: str, folder: Path, changes: list[str]) -> None:
    """Do one step with the rows in `folder`, in a process of its own; print its seconds without the start of Java."""
    from pipelines.core.params import load_params
    from pipelines.data.spark import spark_context

    params = load_params(TINY, ["rights.consent.unknown=deny", *changes])
    faces, processed = folder / "faces", folder / "processed"
    shards = sorted(faces.glob("*.parquet"))
    started = time.perf_counter()
    if name == "validate":
        from pipelines.stages.validate import Inputs, Outputs, run

        run(params, Inputs(faces), Outputs(folder / "report"))
    elif name == "validate_processed":
        from pipelines.stages import validate_processed

        inputs = validate_processed.Inputs(processed, faces)
        validate_processed.run(params, inputs, validate_processed.Outputs(folder / "report_processed"))
    elif name == "drift":
        from pipelines.data.same_photos import check_same_photos
        from pipelines.registry.drift.features import read_sample

        check_same_photos(faces, processed)
        read_sample(faces, processed, params.drift.sample)
    else:
        from pipelines.data.preprocessing.matches import find_originals
        from pipelines.data.preprocessing.partition import partition_hash
        from pipelines.data.preprocessing.slices import cut_slices
        from pipelines.data.preprocessing.tasks import Job, plan_slice

        with spark_context(params.preprocess.master, "scale") as context:
            context.parallelize([0]).map(abs).collect()  # the start of Java and of a worker
            started = time.perf_counter()
            if name == "copies":
                print(len(find_originals(context, shards)), file=sys.stderr)
            else:
                job = Job(params.preprocess, "version", folder)

                def planned(piece: Any) -> int:
                    columns = plan_slice(piece, job, {}).columns
                    return sum(map(partition_hash, columns["identity"], columns["image_id"])) % 2

                slices = cut_slices(shards, 4096)
                context.parallelize(slices, -(-len(slices) // 64)).map(planned).sum()
    print(round(time.perf_counter() - started, 1))


def of_rows(folder: Path, rows: int, steps: list[str], changes: list[str]) -> dict[str, Any]:
    """Return the figures of each step for a quarter of the rows and for all, and how they grow."""
    report: dict[str, Any] = {}
    for count in (rows // 4, rows):
        write_rows(folder / str(count), count)
        for name in steps:
            command = [
                sys.executable,
                str(Path(__file__).resolve()),
                "--step",
                name,
                "--folder",
                str(folder / str(count)),
                *(word for change in changes for word in ("--set", change)),
            ]
            figures = measured(f"{name}, {count} rows", command, folder)
            figures["seconds_without_start"] = float(figures.pop("printed"))
            report.setdefault(name, {})[str(count)] = figures
    for name, found in report.items():
        few, all_rows = (found[str(count)]["processor_seconds"] for count in (rows // 4, rows))
        report[name]["exponent"] = round(math.log(all_rows / few, 4), 2)
    return report


def planted(faces: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit-norm embeddings (N, D) float32 and the person of each: one in ten a stranger, others with some 20."""
    rng = np.random.default_rng(0)
    people = max(1, faces * 9 // 200)
    known = np.concatenate([rng.integers(0, people, faces - faces // 10), people + np.arange(faces // 10)])
    rng.shuffle(known)
    embeddings = np.empty((faces, dimensions), np.float32)
    for start in range(0, faces, ROWS_OF_SHARD):
        some = known[start : start + ROWS_OF_SHARD]
        centres = np.stack([np.random.default_rng(one).normal(size=dimensions) for one in some]).astype(np.float32)
        noise = rng.normal(size=centres.shape).astype(np.float32) * rng.uniform(0.5, 1.1, (len(some), 1)).astype(
            np.float32
        )
        embeddings[start : start + len(some)] = centres + noise
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings, known


def of_faces(faces: int, dimensions: int) -> dict[str, Any]:
    """Return figures of grouping `faces` embeddings, with exact neighbours and in parts."""
    from sklearn.metrics.cluster import pair_confusion_matrix

    from pipelines.data.curation import neighbourhood
    from pipelines.data.curation.clusters import cluster

    def f1(found: np.ndarray, known: np.ndarray) -> float:
        (_, wrong), (missed, both) = pair_confusion_matrix(known, found)
        return round(float(2 * both / max(2 * both + wrong + missed, 1)), 5)

    embeddings, known = planted(faces, dimensions)
    report: dict[str, Any] = {}
    found = {}
    ways = {"exact": faces, "parts": 0} if faces <= neighbourhood.EXACT_ROWS else {"parts": 0}
    if len(ways) == 2:
        neighbourhood.PART_ROWS = faces // 4 + 1
    for way, exact_rows in ways.items():
        neighbourhood.EXACT_ROWS = exact_rows
        wall, processor = time.perf_counter(), time.process_time()
        neighbourhood.neighbours(embeddings, 30)
        searched = {"neighbours_processor_s": round(time.process_time() - processor, 1)}
        searched["neighbours_s"] = round(time.perf_counter() - wall, 1)
        wall = time.perf_counter()
        found[way] = cluster(embeddings, 0.35, 30, 0.55)
        report[way] = {**searched, "grouping_s": round(time.perf_counter() - wall, 1), "f1": f1(found[way], known)}
        print(way, report[way], file=sys.stderr)
    if len(found) == 2:
        report["agreement_f1"] = f1(found["parts"], found["exact"])
    import resource

    return {**report, "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--photos", type=int)
    size.add_argument("--rows", type=int)
    size.add_argument("--faces", type=int)
    size.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", default=",".join(STEPS), help="of --rows: which ones")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--drawn", type=int, default=3500, help="pictures that are drawn; the others are variants")
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder, options.changes)
        return
    with tempfile.TemporaryDirectory(prefix="dynamicid-scale-") as folder:
        if options.photos:
            report = of_photos(Path(folder), options.photos, options.drawn, options.changes)
        elif options.rows:
            report = of_rows(Path(folder), options.rows, options.steps.split(","), options.changes)
        else:
            report = of_faces(options.faces, options.dimensions)
    print(json.dumps(report))


if __name__ == "__main__":
    main()

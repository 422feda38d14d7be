"""Expect hours and gigabytes of each stage, from small measured runs of the profile's own networks on this machine."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.processors import cores
from pipelines.core.params import Params
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA
from pipelines.core.sections.data import Rights
from pipelines.core.words import counted
from pipelines.operations.doctor.data import Photos

# Photos that are analysed, and those of them by which the networks are warmed up first.
_PHOTOS, _WARM = 14, 2
_STEPS = 4
_LIBRARIES = "import torch, diffusers, transformers, insightface, pipelines.stages.train_anchoring"
# A checkpoint holds value, two moments and the average of each weight; two are kept.
_COPIES = 8


@dataclass(frozen=True)
class Estimate:
    """What a stage is expected to take: hours, gigabytes that stay on the disk, and from what that was computed."""

    stage: str
    hours: float
    gigabytes: float
    basis: str


def estimate(params: Params, faces: Path, found: Photos) -> list[Estimate]:
    """Measure a few photos, training steps and pictures, and return the estimates in the order of the chain.

    Raises UserError where a network is missing or does not fit. Nothing outside a temporary folder is written.
    """
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        return _estimate(params, faces, found, Path(folder))


def _estimate(params: Params, faces: Path, found: Photos, work: Path) -> list[Estimate]:
    rows, seconds = _analysed(params, faces)
    workers = _workers(params.preprocess.master)
    stored = sum(len(row["image"]) for row in rows) / max(1, len(rows)) + 4096
    start = _timed(lambda: subprocess.run([sys.executable, "-c", _LIBRARIES], check=True, capture_output=True))
    hours = (start + _spark_seconds(params) + found.photos * seconds / workers) / 3600
    basis = f"{seconds:.3g} s a photo, {workers} workers"
    result = [Estimate("preprocess", hours, 2 * found.photos * stored / 1e9, basis)]
    if len(rows) < 2:
        return result
    _write(rows, work / "processed", found)
    result.append(_training("train_anchoring", params, work, found))
    result.append(_training("train_imr", params, work, found))
    result.append(_evaluation(params, work, found, seconds))
    return [result[0], *(replace(one, hours=one.hours + start / 3600) for one in result[1:])]


def _spark_seconds(params: Params) -> float:
    """Return how long Spark takes to start, to load the networks in its workers, and to end."""
    from pipelines.data.spark import spark_context

    section = params.preprocess

    def load(_: int) -> int:
        from pipelines.data.faces.analysis import load_analyser

        load_analyser(section)
        return 0

    def run() -> None:
        with spark_context(section.master, "dynamicid doctor", section.spark) as context:
            tasks = _workers(section.master)
            context.parallelize(range(tasks), tasks).map(load).collect()

    return _timed(run)


def _analysed(params: Params, faces: Path) -> tuple[list[dict[str, Any]], float]:
    """Return the rows of a few accepted photos, of the dataset or else drawn, and the seconds of one photo."""
    from pipelines.data.faces.analysis import load_analyser
    from pipelines.data.faces.domain import some_pictures

    pictures = list(some_pictures(faces, _PHOTOS)) or _drawn(params.preprocess.resolution)
    analyser = load_analyser(params.preprocess.model_copy(update={"several_faces": "largest", "min_face_side": 16}))
    analyser.analyse(pictures[:_WARM])
    timed = pictures[_WARM:] or pictures
    begun = time.perf_counter()
    records = analyser.analyse(timed)
    seconds = (time.perf_counter() - begun) / len(timed)
    names = [name for name in PROCESSED_SCHEMA.names if name not in ("image_id", "identity", "file_name", "split")]
    rows = []
    for record in (record for record in records if record.status == OK):
        row = {name: getattr(record, name, None) for name in names}
        row |= {"prompt": record.prompt or "a photo of a person", "expression": record.expression or "neutral"}
        lists = {name: value.ravel().tolist() for name, value in row.items() if isinstance(value, np.ndarray)}
        rows.append({**row, **lists})
    return rows, seconds


def _drawn(size: int) -> list[bytes]:
    import cv2

    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    images = [
        render(Person.sample("dataset", 0, number), person_scenes(0, number)[number], max(128, size)).image
        for number in range(_PHOTOS)
    ]
    return [cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes() for image in images]


def _write(rows: list[dict[str, Any]], folder: Path, found: Photos) -> None:
    """Write the rows often enough for a batch, as photos of several people; the pictures repeat."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    table = []
    for number in range(48):
        name = {"image_id": f"{number:064x}", "identity": f"person {number // 6}", "file_name": f"{number}.jpg"}
        row = rows[number % len(rows)]
        # The same pixels with other numbers are another photo to every cache.
        moved = [value + number * 1e-4 for value in row["bbox"]]
        table.append({**row, **name, "bbox": moved, "split": "train"})
    pq.write_table(pa.Table.from_pylist(table, schema=PROCESSED_SCHEMA), folder / "part-00000.parquet")


def _training(stage: str, params: Params, work: Path, found: Photos) -> Estimate:
    """Run a training four times: with new photos, and with cached ones for a few steps and for some more."""
    import importlib

    module = importlib.import_module(f"pipelines.stages.{stage}")
    section = getattr(params, stage)
    more = max(_STEPS, getattr(section, "ldc_every", 1))

    def run(steps: int) -> None:
        few: dict[str, Any] = {"steps": steps, "warmup_steps": 0, "checkpoint_every": 10**9, "log_every": 10**9}
        few["start_from"] = None
        # Whether these rows may be trained on is not the question here.
        changed = params.model_copy(update={stage: section.model_copy(update=few), "rights": Rights()})
        kept = {"adapter": work / stage, "losses": work / f"{stage}.csv", "metrics": work / f"{stage}.json"}
        inputs: dict[str, Any] = {"processed": work / "processed", "state": work / "state"}
        if stage == "train_imr":
            inputs["anchoring"] = work / "train_anchoring"
        module.run(changed, module.Inputs(**inputs), module.Outputs(**kept))

    cache = work / "state" / "cache"

    def encoded() -> int:
        """Return the number of photos of which anything is in the caches: those that were drawn."""
        return sum(file.stat().st_size // 32 for file in cache.glob("faces/*/keys.bin"))

    counts = [encoded()]

    def counted(steps: int) -> None:
        run(steps)
        counts.append(encoded())

    # The second run draws more photos.
    first, _, again, longer = _compared(counted, (2, 2 + more, 2, 2 + more))
    new = counts[1] - counts[0]
    step = max(1e-4, (longer - again) / more)
    photo = max(0.0, (first - again) / max(1, new))
    fixed = max(0.0, again - 2 * step)
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / max(1, encoded())
    adapter = sum(file.stat().st_size for file in (work / stage).rglob("*") if file.is_file())
    hours = (fixed + photo * found.photos + step * section.steps) / 3600
    basis = f"{step:.3g} s a step, {photo:.3g} s a photo"
    return Estimate(stage, hours, (size * found.photos + _COPIES * adapter) / 1e9, basis)


def _evaluation(params: Params, work: Path, found: Photos, photo: float) -> Estimate:
    """Draw a batch twice, with a few steps and with some more."""
    from pipelines.evaluation.plan import PictureSpec
    from pipelines.evaluation.sampling import CellRenderer, load_pipeline

    settings = params.evaluate
    batch = min(settings.batch_size, 8)
    begun = time.perf_counter()
    pipe = load_pipeline(params, work / "train_imr")
    loaded = time.perf_counter() - begun
    tokens = np.zeros((pipe.adapter.tokens_per_person, pipe.adapter.width), np.float32)
    specs = [PictureSpec("a photo of a person", number, tokens) for number in range(batch)]

    def draw(steps: int) -> None:
        renderer = CellRenderer(pipe, settings.model_copy(update={"steps": steps}), params.base.resolution)
        renderer.draw(specs)

    draw(1)
    short, longer = _compared(draw, (2, 6))
    step = max(1e-5, (longer - short) / 4 / batch)
    rest = max(0.0, short / batch - 2 * step)
    held_out = sum(count >= 3 for name, count in found.people.items() if _is_held_out(name, params))
    people = min(settings.people, held_out) or settings.people
    graded = people * settings.seeds
    several = sum(settings.several_people.pictures.values())
    pictures = graded * (11 + 3 * settings.variant_cells) + people * (settings.diversity_seeds - 1) + 5 * several
    if settings.shipped_adapter is not None:
        pictures += graded * settings.variant_cells + several
    if settings.protocol == "paper":
        pictures += people * (2 * 35 + 2)  # with the gate and without, and without IMR one of each prompt
    # Judging a face takes about as long as analysing one.
    seconds = 2 * loaded + pictures * (step * settings.steps + rest + photo)
    disk = 0.05 + pictures * params.base.resolution**2 * 1.5e-9  # half of the pixels' bytes
    return Estimate(
        "evaluate", seconds / 3600, disk, f"{counted(pictures, 'picture')}, {step:.3g} s a step and picture"
    )


def _is_held_out(name: str, params: Params) -> bool:
    from pipelines.data.preprocessing.partition import split_of

    return split_of(name, params.preprocess.test_share, params.preprocess.val_share) == params.evaluate.split


def _workers(master: str) -> int:
    import re

    match = re.fullmatch(r"local\[(\d+|\*)\]", master)
    return 1 if match is None else cores() if match[1] == "*" else min(int(match[1]), cores())


def _compared(work: Callable[[int], Any], arguments: Iterable[int]) -> list[float]:
    """Return the seconds of each call of `work`, for differences between them.

    Without a GPU they are processor seconds, times the seconds that one of them takes by the clock in all calls
    together: other programs come and go between the calls, and would be counted as differences of the work.
    """
    import torch

    spent = []
    for argument in arguments:
        begun = time.perf_counter(), time.process_time()
        work(argument)
        spent.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    by_clock, of_processor = zip(*spent, strict=True)
    if torch.cuda.is_available() or not sum(of_processor):
        return list(by_clock)
    return [one * sum(by_clock) / sum(of_processor) for one in of_processor]


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun

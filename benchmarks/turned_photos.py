"""Measure what becomes of photos that are stored sideways or upside down, and what the search for them costs.

Every photo is analysed as stored and in three turns, by the real networks. The thresholds of
`pipelines/data/faces/turning.py` were chosen on the folder `photos` and 400 photos of `faces_labelled`, which are left
out there: with `--labelled` no photo was seen before. "Another person" is an accepted photo whose embedding is further
from that of the upright photo than two photos of one person are. The cost is the processor time of the analysis of the
photos as stored, divided by that without the search, alternating; of those, photos that the search turns are left out.

    python benchmarks/turned_photos.py --photos 40

The last line is JSON.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.real_networks import SHARED, TINY, real_networks
from pipelines.data.faces.analysis import Analyser

SAME_PERSON = 0.28  # of the recogniser of buffalo_real_mini: one false match in a thousand


def photo_files(shared: Path, labelled: bool) -> list[Path]:
    """Return all photos of the folder `photos`, or those of `faces_labelled` that did not choose the thresholds."""
    import numpy as np

    folder = shared / ("faces_labelled" if labelled else "photos")
    with (folder / ("labels.csv" if labelled else "MANIFEST.csv")).open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if labelled:
        chosen = set(np.random.default_rng(0).choice(len(rows), 400, replace=False).tolist())
        rows = [row for number, row in enumerate(rows) if number not in chosen]
    files = [folder / row["file"] for row in rows]
    return sorted(
        file if file.is_file() else folder / row["set"] / row["file"] for file, row in zip(files, rows, strict=True)
    )


def turned(data: bytes, degrees: int) -> bytes:
    """Return a photo stored without EXIF, turned by `degrees` clockwise, without loss."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    buffer = io.BytesIO()
    picture.rotate(-degrees, expand=True).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def outcomes(analyser: Analyser, files: list[Path]) -> dict[str, Counter[str]]:
    """Count, by turn, the photos that are accepted as the same or as another person, and the rejections."""
    counts: dict[str, Counter[str]] = {f"{degrees}": Counter() for degrees in (0, 90, 180, 270)}
    for file in files:
        upright, *others = analyser.analyse([turned(file.read_bytes(), degrees) for degrees in (0, 90, 180, 270)])
        counts["0"][upright.reason or ("turned by mistake" if upright.turned else "ok")] += 1
        for degrees, record in zip((90, 180, 270), others, strict=True):
            if record.embedding is None:
                outcome = str(record.reason)
            elif upright.embedding is None:
                outcome = "accepted, not comparable: rejected when upright"
            else:
                cosine = float(upright.embedding @ record.embedding)
                outcome = "the same person" if cosine >= SAME_PERSON else "another person"
                if outcome == "another person":
                    print(f"{file.name} turned by {degrees}: cosine {cosine:.2f}", file=sys.stderr)
            counts[f"{degrees}"][outcome] += 1
    return counts


def cost(analysers: tuple[Analyser, Analyser], files: list[Path], rounds: int) -> float:
    """Return the processor time with the search divided by that without: of each photo the least of all rounds."""
    photos = [file.read_bytes() for file in files]
    least = [[float("inf")] * len(photos) for _ in analysers]
    for number in range(rounds + 1):
        for at, photo in enumerate(photos):
            for which in (0, 1) if (at + number) % 2 else (1, 0):
                begun = time.thread_time()
                analysers[which].analyse([photo])
                least[which][at] = min(least[which][at], time.thread_time() - begun)
    return sum(least[0]) / sum(least[1])


def main(
    photos: Annotated[int, typer.Option(help="How many photos.", min=1)] = 40,
    rounds: Annotated[int, typer.Option(help="Rounds of the measurement of the cost.", min=1)] = 5,
    labelled: Annotated[bool, typer.Option(help="Photos that did not choose the thresholds.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Parameters: SECTION.KEY=VALUE.")] = None,
    shared: Annotated[Path, typer.Option(help="Folder of real photos and networks.")] = SHARED,
) -> None:
    """Analyse photos in four turns, and measure the cost of the search."""
    import cv2

    from pipelines.core.params import load_params
    from pipelines.data.faces.analysis import load_analyser

    cv2.setNumThreads(1)
    params = load_params(TINY, [*real_networks(shared), *(changes or [])]).preprocess
    files = photo_files(shared, labelled)
    files = files[:: max(1, len(files) // photos)][:photos]
    analyser = load_analyser(params)
    counts = outcomes(analyser, files)
    without = load_analyser(params)
    without.traits = without.traits._replace(sure_score=0.0)
    kept = [file for file in files if not analyser.analyse([file.read_bytes()])[0].turned]
    ratio = cost((analyser, without), kept, rounds)
    before = outcomes(without, files)
    result = {"photos": len(files), "with": counts, "without": before, "cost": round(ratio - 1, 4)}
    print(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)

"""Measure how well drawings and photographs are distinguished: pictures as they are, saved again, reduced and softened.

    .venv/bin/python benchmarks/domains.py ../shared [--photos 1000]

Drawings: people of the foundation's namespace and of `synthesize` with another seed than any dataset, alone at 64 to
512 pixels, and in groups. Faces are cut by the face boxes of the real small pack, as `preprocess` does. Prints JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from model.foundation.people import PhotoSpec
from pipelines.data.faces.domain import around_face, domain_of_picture
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser
from pipelines.data.synthetic.draw import render, render_group
from pipelines.data.synthetic.foundation_people import draw
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene

Picture = np.ndarray


def drawn(count: int) -> Iterator[tuple[str, Picture]]:
    """Yield drawn pictures, with the name of their set."""
    for number in range(count):
        rng = np.random.default_rng([number, 77])
        expression, pose = EXPRESSIONS[number % len(EXPRESSIONS)], POSES[number % len(POSES)]
        person, scene = Person.sample("dataset", 77, number), Scene.sample(rng, expression, pose, "person")
        for size in (64, 128, 256, 512):
            yield f"drawn, {size} px", render(person, scene, size).image
        other = Person.sample("dataset", 77, number + count), Scene.sample(rng, expression, pose, "person")
        yield "drawn, two people", render_group([(person, scene), other], 128)[0]
        canvas = ((128, 128), (96, 160), (160, 96), (128, 192))[number % 4]
        spec = PhotoSpec(
            seed=77, people=(number,), photo=0, expressions=(expression,), poses=(pose,), size=128, canvas=canvas
        )
        yield "drawn, second edition", draw(spec).image


def photographs(shared: Path, count: int) -> Iterator[tuple[str, Picture]]:
    """Yield photographs of the shared folder, with the name of their set; paintings and engravings are left out."""
    with (shared / "photos/MANIFEST.csv").open() as file:
        files = [("photos", row["file"]) for row in csv.DictReader(file) if "painting" not in row["note"]]
    with (shared / "faces_labelled/labels.csv").open() as file:
        rows = [(row["set"], f"../faces_labelled/{row['file']}") for row in csv.DictReader(file)]
    for kind, name in [*files, *random.Random(0).sample(rows, min(count, len(rows)))]:
        image = cv2.imread(str(shared / "photos" / name), cv2.IMREAD_COLOR)
        if image is not None:
            factor = min(1.0, 1000 / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            yield kind, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def treated(image: Picture) -> Iterator[tuple[str, Picture]]:
    """Yield a picture as it is, saved again, reduced, and softened."""
    yield "as it is", image
    for quality in (80, 50):
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        yield f"JPEG {quality}", np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    factor = 64 / max(image.shape[:2])
    yield "64 px", cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else image
    yield "softened", cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 256)


def main() -> None:
    """Print the shares called drawn, photograph and unknown, of whole pictures and of faces, by set and treatment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--drawn", type=int, default=100)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    pack = InsightFaceAnalyser(
        asked.shared / "weights/insightface/models/buffalo_real_mini", det_sizes=(), det_threshold=0.5
    )
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"drawn": 0, "photograph": 0, "unknown": 0})
    for pictures in (drawn(asked.drawn), photographs(asked.shared, asked.photos)):
        for kind, image in pictures:
            views = {"whole": image}
            factor = max(1.0, 128 / max(image.shape[:2]))
            if faces := pack.detect(cv2.resize(image, None, fx=factor, fy=factor)):
                box = max(faces, key=lambda face: face.area).bbox / factor
                views["face"] = around_face(image, box)
            for view, part in views.items():
                for name, seen in treated(np.ascontiguousarray(part)):
                    counts[f"{kind}; {view}; {name}"][domain_of_picture(seen)] += 1
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()

"""Measure how often the expressions that networks name on labelled photographs are right.

Prints, for each network alone and for the vote of a profile, the share of right expressions among those named and the
share of photos with a name, on both halves of the people: bounds are chosen on the first and reported on the second.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.params import load_params
from pipelines.core.sections.face_networks import FaceClassifier
from pipelines.data.faces.face_networks import Classifier
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder

BOUNDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
AT_ONCE = 32


def main(
    shared: Annotated[Path, typer.Option(help="Folder with faces_labelled and weights.")] = Path("../shared"),
    profile: Annotated[Path, typer.Option(help="Profile whose networks and bounds are measured.")] = Path(
        "profiles/sd15.yaml"
    ),
    photos: Annotated[int, typer.Option(help="Number of photos, people by people.", min=100)] = 2600,
) -> None:
    """Read the photos and print the tables."""
    section = load_params(profile).preprocess.expression
    networks = [_located(network, shared) for network in section.networks]
    read, labels, people = _read(shared, networks, photos)
    second = np.array([zlib.crc32(person.encode()) % 2 == 1 for person in people])
    names = [Path(network.path).stem for network in networks]
    votes = dict(zip(names, read, strict=True)) | {"vote": np.mean(read, axis=0)}
    for name, votes_of in votes.items():
        for bound in BOUNDS:
            _line(f"{name}, {bound}", votes_of, labels, second, np.full(len(EXPRESSIONS), bound))
    least = [section.min_confidence_of.get(word, section.min_confidence) for word in EXPRESSIONS]
    _line("vote with the bounds of the profile", votes["vote"], labels, second, np.array(least))
    best, sure = votes["vote"].argmax(1), votes["vote"].max(1) >= np.array(least)[votes["vote"].argmax(1)]
    for index, word in enumerate(EXPRESSIONS):
        named, there = second & sure & (best == index), second & (labels == index)
        right = int((labels[named] == index).sum())
        print(f"{word}: labelled {there.sum()}, named {named.sum()}, right {right}")


def _located(network: FaceClassifier, shared: Path) -> FaceClassifier:
    return network.model_copy(update={"path": str(shared / "weights" / "expression" / Path(network.path).name)})


def _read(shared: Path, networks: list[FaceClassifier], photos: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return probabilities (networks, N, 7), labels (N,) and the people of the photos with a known expression."""
    with (shared / "faces_labelled" / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["expression"] in EXPRESSIONS]
    rows.sort(key=lambda row: (row["set"] != "imfdb", zlib.crc32(row["person"].encode(), 1), row["file"]))
    pack = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface"))
    classifiers = [Classifier(network, network.path) for network in networks]
    parts: list[np.ndarray] = []
    labels: list[int] = []
    people: list[str] = []
    for start in range(0, min(photos, len(rows)), AT_ONCE):
        views = []
        for row in rows[start : start + AT_ONCE]:
            image = cv2.cvtColor(cv2.imread(str(shared / "faces_labelled" / row["file"])), cv2.COLOR_BGR2RGB)
            if found := pack.detect(image):
                face = max(found, key=lambda one: one.area)
                views.append((image, face.bbox, face.keypoints))
                labels.append(EXPRESSIONS.index(row["expression"]))
                people.append(row["person"])
        parts.append(np.stack([one.probabilities(*map(list, zip(*views, strict=True))) for one in classifiers]))
    return np.concatenate(parts, axis=1), np.array(labels), people


def _line(title: str, votes: np.ndarray, labels: np.ndarray, second: np.ndarray, least: np.ndarray) -> None:
    best = votes.argmax(1)
    named = votes.max(1) >= least[best]
    halves = [
        f"right {(best == labels)[half & named].mean():.3f} of {(half & named).sum() / half.sum():.2f}"
        for half in (~second, second)
    ]
    print(f"{title}: first half {halves[0]}; second half {halves[1]}")


if __name__ == "__main__":
    typer.run(main)

"""Measure pictures of one to four people drawn from text: how many faces, and what each of them was asked for.

Prompts come from drawn pictures of people outside the training sets and name each person by place, with expression and
pose. Faces are assigned to people by their place from left to right; a missing face is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.face.people_prompts import with_face_prompts
from model.foundation.people import Array, Groups
from model.foundation.readers import FaceReader
from model.foundation.text_to_image import Sampling, draw_pictures

DETECTION = (192, 192)
"""Size at which faces are detected: at larger ones the detector finds some faces of this size twice."""


@dataclass(frozen=True)
class Asked:
    """Pictures to draw, all of one size: their numbers in `groups`, which has the true pictures."""

    groups: Groups
    rows: Array

    @property
    def texts(self) -> list[str]:
        """The prompts with every person's face prompt."""
        return [with_face_prompts(self.groups.prompts[row], self.groups.face_prompts[row]) for row in self.rows]


def asked_of(sets: Sequence[Groups], pictures: int) -> list[Asked]:
    """Return about `pictures` pictures, as many of each number of people, spread over the sets that have such."""
    counts = sorted({int(count) for groups in sets for count in groups.count})
    asked: list[list[int]] = [[] for _ in sets]
    for count in counts:
        having = [number for number, groups in enumerate(sets) if (groups.count == count).any()]
        share = -(-pictures // (len(counts) * len(having)))
        for number in having:
            asked[number] += np.flatnonzero(sets[number].count == count)[:share].tolist()
    return [Asked(groups, np.array(rows)) for groups, rows in zip(sets, asked, strict=True) if rows]


def measure(weights: Path, sets: Sequence[Groups], reader: FaceReader, sample: Sampling) -> dict[str, float]:
    """Return `score` of pictures by the pipeline in `weights` and, with the ending `_photos`, of the true pictures."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(weights / "sd", local_files_only=True, dtype=torch.float32)
    asked = asked_of(sets, sample.pictures)
    drawn = [draw_pictures(pipe, one.texts, sample, size=one.groups.photos.shape[1:3]) for one in asked]
    true = [np.asarray(one.groups.photos[one.rows]) for one in asked]
    bound = score(asked, true, reader)
    return {**score(asked, drawn, reader), **{f"{name}_photos": value for name, value in bound.items()}}


def score(asked: Sequence[Asked], pictures: Sequence[Array], reader: FaceReader) -> dict[str, float]:
    """Return, for each number n of people, `count_n`, the share of pictures with exactly n faces, and
    `expression_n` and `pose_n`, the shares of people with the expression and the pose that they were asked for."""
    found: dict[int, list[tuple[bool, Any, Any]]] = {}
    for one, images in zip(asked, pictures, strict=True):
        for row, image, faces in zip(one.rows, images, reader.all_keypoints(list(images)), strict=True):
            count = int(one.groups.count[row])
            expression, pose = np.full(count, -1), np.full(count, -1)
            people, which = assign(faces, count, image.shape[1])
            if len(people):
                readings = reader.read([image] * len(people), list(faces[which]))
                expression[people], pose[people] = readings.expression, readings.pose
            right = expression == one.groups.expression[row, :count], pose == one.groups.pose[row, :count]
            found.setdefault(count, []).append((len(faces) == count, *right))
    figures = {}
    for count, results in sorted(found.items()):
        counts, expressions, poses = zip(*results, strict=True)
        for name, values in (("count", [counts]), ("expression", expressions), ("pose", poses)):
            figures[f"{name}_{count}"] = float(np.concatenate(values).mean())
    return figures


def assign(faces: Array, count: int, width: int) -> tuple[Array, Array]:
    """Return people (K,) and their faces (K,), matched by place: `faces` (F, 5, 2) in a picture `width` pixels wide.

    People stand side by side at equal distances, so that n faces belong to n people from left to right; with more or
    fewer faces, distances to these places decide (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    middles = faces[..., 0].mean(1) if len(faces) else np.zeros(0)
    if len(faces) == count:
        return np.arange(count), np.argsort(middles)
    places = (np.arange(count) + 0.5) / count * width
    people, which = linear_sum_assignment(np.abs(places[:, None] - middles[None]))
    return people, which

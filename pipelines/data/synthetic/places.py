"""Places of several heads in one picture: side by side, no face covered by a neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.data.synthetic.camera import Array

SHORTEST, TALLEST = 1 / 3, 4 / 5
"""Head heights (crown to chin) as shares of the picture's height."""
_MARGIN = 0.015
# The drawn body ends this many half head heights below the middle of the head; of the neck a little is visible.
_BODY, _NECK = 3.3, 1.3
# Shares of the hair beside a face that neighbours keep free, tried one after the other.
_CLEARANCES = (1.0, 0.7, 0.4)
# The same share at the picture's borders, which may cut hair, relative to the one between neighbours.
_AT_BORDER = 0.6


@dataclass(frozen=True)
class Reach:
    """How far a head extends from its middle, in half head heights: the face to both sides, hair to both sides and up.

    Left and up are positive numbers, too; hair is at least as wide as the face.
    """

    face_left: float
    face_right: float
    hair_left: float
    hair_right: float
    up: float


@dataclass(frozen=True)
class Place:
    """The middle of a head and half its height, in pixels."""

    x: float
    y: float
    unit: float


def place_people(rng: np.random.Generator, reaches: Sequence[Reach], width: int, height: int) -> list[Place]:
    """Place people from the picture's left to its right, with heads of about one random size.

    Heads are a third to four fifths of the height, never so large that hair reaches a neighbour's face; only where even
    the smallest are too wide, hair comes nearer. Raises ValueError where the faces alone do not fit.
    """
    count = len(reaches)
    factors = rng.uniform(0.92, 1.08, count) if count > 1 else np.ones(1)
    share = float(rng.random())
    least, most = SHORTEST * height / 2 / factors.min(), TALLEST * height / 2 / factors.max()
    room = width * (1 - 2 * _MARGIN)
    for clearance in _CLEARANCES:
        needed = _needed(reaches, factors, clearance)
        if least * needed.sum() <= room:
            break
    else:
        raise ValueError(f"{count} people do not fit side by side into {width} × {height} pixels")
    unit = least + share * (min(most, room / needed.sum()) - least)
    free = rng.dirichlet([2.0, *([4.0] * (count - 1)), 2.0]) * (room - unit * needed.sum())
    middles = width * _MARGIN + np.cumsum(needed[:-1] * unit + free[:-1])
    level = _level(rng, max(reach.up for reach in reaches), unit * factors.max(), height)
    jitter = rng.uniform(-0.1, 0.1, count) * unit
    return [
        Place(float(x), float(level + up), float(unit * factor))
        for x, up, factor in zip(middles, jitter, factors, strict=True)
    ]


def _needed(reaches: Sequence[Reach], factors: Array, clearance: float) -> Array:
    """Return the room at both borders and between neighbours, (P + 1,) in units."""

    def side(face: float, hair: float, share: float = 1.0) -> float:
        return face + clearance * share * (hair - face)

    between = [
        max(
            left.face_right * one + side(right.face_left, right.hair_left) * two,
            side(left.face_right, left.hair_right) * one + right.face_left * two,
        )
        for left, right, one, two in zip(reaches, reaches[1:], factors, factors[1:], strict=False)
    ]
    first, last = reaches[0], reaches[-1]
    left = side(first.face_left, first.hair_left, _AT_BORDER) * factors[0]
    right = side(last.face_right, last.hair_right, _AT_BORDER) * factors[-1]
    return np.array([left, *between, right])


def _level(rng: np.random.Generator, up: float, unit: float, height: int) -> float:
    """Return a height for the middles: hair below the upper border if there is room, the body down to the lower one."""
    low, high = max(up * unit, height - _BODY * unit), height - _NECK * unit
    return float(rng.uniform(low, high)) if low < high else (low + high) / 2


def apart(boxes: Array) -> bool:
    """Return whether no two of the face boxes (P, 4) x0 y0 x1 y1 overlap."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    one, two = np.triu_indices(len(boxes), 1)
    return not (high > low)[one, two].all(-1).any()

"""Reads what a caller asks for, people, boxes and face prompts, into one row per drawn picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.face import Face
from model.face_prompts import EXPRESSIONS, POSE_PHRASES, parse

Faces = Sequence[Face] | Sequence[Sequence[Face]]
FacePrompts = Sequence[str | None] | Sequence[Sequence[str | None]]


def wished(face_prompt: str, face: Face) -> tuple[str, str]:
    """Return the expression and pose a face prompt asks of `face`; what it leaves open stays as in the reference."""
    wish = parse(face_prompt)
    if wish.expression is None and wish.pose is None:
        raise ValueError(
            f"face prompt {face_prompt!r} names no expression ({', '.join(EXPRESSIONS)}) and no pose "
            f"({', '.join(POSE_PHRASES.values())})"
        )
    return wish.expression or face.expression, wish.pose or face.pose


def per_picture(given: Sequence[Any], name: str) -> list[list[Any]]:
    """Return one list of people per picture; a flat list is one picture. ValueError where their lengths differ."""
    nested = [list(x) if isinstance(x, list | tuple) else x for x in given]
    if not nested:
        raise ValueError(f"{name}: empty; expected at least one person")
    pictures: list[list[Any]] = nested if isinstance(nested[0], list) else [nested]
    if any(not isinstance(people, list) or len(people) != len(pictures[0]) or not people for people in pictures):
        raise ValueError(f"{name}: expected the same number of people, at least one, in every picture")
    return pictures


def for_pictures(rows: Tensor, prompts: int, copies: int, name: str) -> Tensor:
    """Give every drawn picture its row: one row serves all prompts, and the copies of a prompt lie side by side."""
    if len(rows) not in (1, prompts):
        raise ValueError(f"{name} of {len(rows)} pictures for {prompts} prompts")
    return rows.expand(prompts, *rows.shape[1:]).repeat_interleave(copies, dim=0)


def check_boxes(boxes: Any, people: int, prompts: int, copies: int) -> Tensor | None:
    """Return (1 or B, P, 4) float64; ValueError for a box outside [0, 1] or without area."""
    if boxes is None:
        return None
    given = torch.as_tensor(np.asarray(boxes, np.float64))
    given = given[None] if given.ndim == 2 else given
    if given.ndim != 3 or given.shape[1:] != (people, 4):
        raise ValueError(f"boxes of shape {tuple(given.shape)}: expected (y0, x0, y1, x1) for each of {people} people")
    for y0, x0, y1, x1 in given.flatten(0, 1).tolist():
        if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
            raise ValueError(f"box {y0:g},{x0:g},{y1:g},{x1:g}: expected 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1")
    return given if len(given) == 1 else for_pictures(given, prompts, copies, "boxes")

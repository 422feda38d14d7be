"""Check people, regions, strengths and face prompts of a call, and convert them to one row per picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.face.face import Blend, Face, ReferenceSet
from model.face.face_prompts import parse_request
from model.face.target_motion import TargetMotion, contradiction

Person = Face | Blend | ReferenceSet
Faces = Sequence[Person] | Sequence[Sequence[Person]]
FacePrompts = Sequence[str | None] | Sequence[Sequence[str | None]]
Motions = Sequence[TargetMotion | None] | Sequence[Sequence[TargetMotion | None]]


def requested_motion(face_prompt: str, face: Face) -> tuple[str | None, str | None]:
    """Return expression and pose of a face prompt, a missing one from `face`, None where that does not know it either.

    Raise ValueError as `parse_request`.
    """
    parsed = parse_request(face_prompt)
    return parsed.expression or face.expression, parsed.pose or face.pose


def per_picture(given: Sequence[Any], name: str) -> list[list[Any]]:
    """Return one list per picture, one entry per person (a flat list is one picture); raise ValueError if unequal."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"{name}: {type(given).__name__}; expected a list with one entry per person")
    nested = [list(x) if isinstance(x, list | tuple) else x for x in given]
    if not nested:
        raise ValueError(f"{name}: empty; expected at least one person")
    pictures: list[list[Any]] = nested if isinstance(nested[0], list) else [nested]
    if any(not isinstance(people, list) or len(people) != len(pictures[0]) or not people for people in pictures):
        raise ValueError(f"{name}: expected the same number of people, at least one, in every picture")
    return pictures


def people_and_prompts(
    faces: Faces, face_prompts: FacePrompts | None
) -> tuple[list[list[Person]], list[list[str | None]]]:
    """Return people and their face prompts, one list per picture; raise ValueError if they do not match."""
    pictures: list[list[Person]] = per_picture(faces, "faces")
    for face in (part for people in pictures for person in people for part in faces_of(person)):
        check_face(face)
    prompts: list[list[str | None]] = [[None] * len(people) for people in pictures]
    if face_prompts is not None:
        prompts = per_picture(face_prompts, "face_prompts")
        if len(prompts) != len(pictures):
            raise ValueError(f"face prompts for {len(prompts)} pictures, faces of {len(pictures)}: expected the same")
        for texts, people in zip(prompts, pictures, strict=True):
            if len(texts) != len(people):
                raise ValueError(
                    f"face prompts: {len(texts)}, people: {len(people)}; expected one face prompt per person "
                    "(None keeps the expression and pose of the reference)"
                )
    return pictures, prompts


def motions_of(motions: Motions | None, prompts: Sequence[Sequence[str | None]]) -> list[list[TargetMotion | None]]:
    """Return what is asked of each person's motion, in the shape of `prompts`, None for nothing.

    Raise ValueError for another shape, and where a motion contradicts the face prompt of the person.
    """
    if motions is None:
        return [[None] * len(texts) for texts in prompts]
    pictures = per_picture(motions, "motions")
    if [len(people) for people in pictures] != [len(texts) for texts in prompts]:
        raise ValueError(
            f"motions of {len(pictures)} pictures with {len(pictures[0])} people, faces of {len(prompts)} with "
            f"{len(prompts[0])}: expected one motion per person (None for none)"
        )
    pairs = zip([one for row in pictures for one in row], [text for row in prompts for text in row], strict=True)
    for motion, text in pairs:
        if motion is not None and not isinstance(motion, TargetMotion):
            raise ValueError(f"a motion given as {type(motion).__name__}: expected a TargetMotion, or None")
        if motion is not None and motion.driving is not None:
            check_face(motion.driving)
        if motion and (wrong := contradiction(text, yaw=motion.yaw, driving=motion.driving is not None)):
            raise ValueError(wrong)
    return [[None if motion == TargetMotion() else motion for motion in row] for row in pictures]


def faces_of(person: Any) -> tuple[Face, ...]:
    """Return the faces of a person: one, those of a set, or the two of a mix; raise ValueError for anything else."""
    if isinstance(person, ReferenceSet):
        return person.faces
    if isinstance(person, Blend):
        return (person.first, person.second)
    if isinstance(person, Face):
        return (person,)
    raise ValueError(
        f"a person given as {type(person).__name__}: expected a Face (an analysed photo), a ReferenceSet of "
        "several photos of one person, or a Blend of two people"
    )


def reference_counts(faces: Faces) -> tuple[int, ...]:
    """Return for each of P people how many references' tokens stand beside each other: 1, but in sets to concatenate.

    Raise ValueError where that differs between pictures, whose tokens would not fit together.
    """
    counts = {
        tuple(len(one.faces) if isinstance(one, ReferenceSet) and one.combine == "concatenate" else 1 for one in people)
        for people in per_picture(faces, "faces")
    }
    if len(counts) > 1:
        shown = " and ".join(sorted(map(str, counts)))
        raise ValueError(
            f"concatenated references: {shown} of the people of different pictures; expected the same numbers in every "
            "picture of a call (or average them)"
        )
    return counts.pop()


def check_face(face: Face) -> None:
    """Raise ValueError if the arrays of a face do not have the shapes of model.face.face.Face."""
    crop = np.asarray(face.crop)
    if np.shape(face.embedding) != (512,):
        raise ValueError(f"face embedding of shape {np.shape(face.embedding)}: expected (512,)")
    if crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3 or crop.dtype != np.uint8:
        raise ValueError(f"face crop of shape {crop.shape}, {crop.dtype}: expected (S, S, 3) uint8, RGB")
    if np.shape(face.landmarks) not in ((68, 2), (106, 2)):
        raise ValueError(f"face landmarks of shape {np.shape(face.landmarks)}: expected (68, 2) or (106, 2)")


def for_pictures(rows: Tensor, prompts: int, copies: int, name: str) -> Tensor:
    """Return one row per picture: a single row serves all prompts, and the rows of a prompt's `copies` are adjacent."""
    if len(rows) not in (1, prompts):
        raise ValueError(f"{name} of {len(rows)} pictures for {prompts} prompts")
    return rows.expand(prompts, *rows.shape[1:]).repeat_interleave(copies, dim=0)


def check_boxes(boxes: Any, people: int, prompts: int, copies: int) -> Tensor | None:
    """Return boxes (1 or B, P, 4) float64; raise ValueError for a box outside [0, 1] or without area."""
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


def check_masks(masks: Any, people: int, prompts: int, copies: int) -> Tensor | None:
    """Return masks (1 or B, P, h, w) float32 in [0, 1]; uint8 is divided by 255.

    `masks` (P, h, w) or (B, P, h, w): an array, or a list of arrays or grey PIL pictures of one size. Raise ValueError
    for other shapes or values, and for an empty mask.
    """
    if masks is None:
        return None
    array = np.stack([np.asarray(mask) for mask in masks]) if isinstance(masks, list | tuple) else np.asarray(masks)
    given = torch.as_tensor(array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1))
    given = given[None] if given.ndim == 3 else given
    if given.ndim != 4 or given.shape[1] != people:
        raise ValueError(f"masks of shape {array.shape}: expected (height, width) for each of {people} people")
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise ValueError("masks: expected values between 0 and 1 (or uint8, 0 to 255)")
    for row, mask in enumerate(given.flatten(0, 1)):
        if not bool(mask.any()):
            raise ValueError(f"mask of person {row % people + 1}: it covers nothing; fill the area of the person")
    return given if len(given) == 1 else for_pictures(given, prompts, copies, "masks")


def check_scale(scale: Any, people: int, prompts: int, copies: int) -> Any:
    """Return λ as a number, or as (P,) or (B, P) float32; raise ValueError for another shape."""
    if isinstance(scale, int | float):
        return float(scale)
    given = torch.as_tensor(scale, dtype=torch.float32)
    if given.ndim == 0:
        return float(given)
    if given.ndim > 2 or given.shape[-1] != people:
        raise ValueError(
            f"identity_scale of shape {tuple(given.shape)}: expected a number, or one for each of {people}"
        )
    return given if given.ndim == 1 else for_pictures(given, prompts, copies, "identity_scale")


def check_size(height: int | None, width: int | None, step: int = 8) -> None:
    """Raise ValueError, naming the nearest valid sizes, for a size in pixels that is no positive multiple of `step`."""
    for name, value in (("height", height), ("width", width)):
        if value is not None and (value <= 0 or value % step):
            below = max(step, value // step * step)
            raise ValueError(f"{name} {value}: expected a multiple of {step}, for example {below} or {below + step}")

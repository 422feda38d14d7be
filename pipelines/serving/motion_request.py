"""What a request asks of each person's expression and pose beyond a face prompt: numbers, and driving photos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from model.face.target_motion import TargetMotion, contradiction
from pipelines.core.errors import UserError
from pipelines.core.words import counted

NUMBERS = ("strength", "yaw", "pitch", "roll")
PHOTOS = ("driving", "driving_faces")
COLUMNS = (*NUMBERS, *PHOTOS)
"""Names of the columns of a row, each a list with an entry for each person."""


def motions_of(columns: Mapping[str, Any], people: int) -> tuple[TargetMotion | None, ...]:
    """Return what the columns NUMBERS ask of each of `people` people, none where they ask nothing.

    An entry is a number, or None or "" for nothing. Raise UserError for another number of entries, and for values that
    are no numbers or out of their range.
    """
    given = [_numbers(columns.get(name), name, people) for name in NUMBERS]
    try:
        motions = [TargetMotion(*values) for values in zip(*given, strict=True)]
    except ValueError as error:
        raise UserError(str(error)) from None
    asked = [None if motion == TargetMotion() else motion for motion in motions]
    return tuple(asked) if any(asked) else ()


def check_motions(
    motions: Sequence[TargetMotion | None], driving: Sequence[Any], faces: Sequence[Any], face_prompts: Sequence[str]
) -> None:
    """Raise UserError where a person's face prompt contradicts motion or driving photo, or a face has no photo."""
    for n in range(max(len(motions), len(driving), len(faces))):
        motion = motions[n] if motions else None
        photo = driving[n] if driving else None
        text = face_prompts[n] if face_prompts else ""
        yaw = None if motion is None else motion.yaw
        if wrong := contradiction(text, yaw=yaw, driving=photo is not None):
            raise UserError(f"person {n + 1}: {wrong}")
        if photo is None and faces and faces[n] is not None:
            raise UserError(f"driving face {faces[n]} of person {n + 1}, who has no driving photo; leave it out")


def described(face_prompt: str | None, motion: TargetMotion | None, driving: Any) -> str:
    """Return what was asked of a face, such as "happy, strength 0.5, yaw -20"; "" for nothing."""
    numbers = {} if motion is None else {name: getattr(motion, name) for name in NUMBERS}
    given = [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
    return ", ".join([*filter(None, [face_prompt, "as a driving photo" if driving else ""]), *given])


def listed(value: Any, name: str) -> list[Any]:
    """Return the entries of a column, none where it is not given; raise UserError where it is no list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"{name}: {type(value).__name__}; expected a list with one entry per person")
    return list(value)


def _numbers(value: Any, name: str, people: int) -> list[float | None]:
    entries = listed(value, name)
    if entries and len(entries) != people:
        given = counted(len(entries), f"value of {name}", f"values of {name}")
        raise UserError(f"{given} for {counted(people, 'person', 'people')}: give none or one per person")
    return [_number(entry, name) for entry in entries] or [None] * people


def _number(value: Any, name: str) -> float | None:
    value = value.item() if hasattr(value, "item") else value
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name}: {str(value)[:40]!r}; expected a number for each person, or nothing")
    return number

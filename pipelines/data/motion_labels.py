"""Expression and pose of a processed row, as training and evaluation read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.face.face_prompts import EXPRESSIONS, POSES, parse, pose_of_yaw
from pipelines.core.errors import UserError

# The columns that `motion_of` reads.
MOTION: tuple[str, ...] = ("image_id", "expression", "pose", "pose_source", "yaw", "face_prompt")


def motion_of(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return expression and pose of an accepted row with the columns MOTION; None: open. UserError: unknown words."""
    expression, pose = row["expression"], row.get("pose")
    if pose is None and row.get("pose_source") is None:
        # Rows of format 2 and older: a face prompt describes the photo as seen, an angle may be beyond a boundary.
        pose = parse(row["face_prompt"] or "").pose or pose_of_yaw(float(row["yaw"]))
    for name, word, words in (("expression", expression, EXPRESSIONS), ("pose", pose, POSES)):
        if word is not None and word not in words:
            raise UserError(f"photo {row['image_id']}: {name} {word!r} is none of {', '.join(words)}")
    return expression, pose

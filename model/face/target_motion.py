"""What can be asked of a face beyond words: the strength of its expression, angles, or the motion of another photo."""

from __future__ import annotations

from dataclasses import dataclass

from model.face.face import Face
from model.face.face_prompts import POSE_YAW, parse

# The values that mean something, from the lowest to the highest; angles in degrees.
STRENGTH, YAW, PITCH, ROLL = (0.0, 1.5), (-90.0, 90.0), (-60.0, 60.0), (-90.0, 90.0)
_POSSIBLE = {"strength": STRENGTH, "yaw": YAW, "pitch": PITCH, "roll": ROLL}
# Those between the words of face prompts, and for pitch those that count as level, which no word names.
_KNOWN = {"strength": (0.0, 1.0), "yaw": (min(POSE_YAW.values()), max(POSE_YAW.values())), "pitch": (-10.0, 10.0)}


@dataclass(frozen=True)
class TargetMotion:
    """The expression and pose of a face where words are not enough; None for what face prompt or reference say.

    `strength` of the expression: 0 is neutral, 1 as the word means it, at most 1.5. `yaw`, `pitch` and `roll` in
    degrees, as in face_prompts; at most 90, 60 and 90 to either side. `driving`: the face of a photo of anybody, whose
    expression and pose are taken in the place of a face prompt's; the others change these. Raise ValueError for a
    value out of its range.
    """

    strength: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    driving: Face | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _POSSIBLE.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                unit = "" if name == "strength" else " degrees"
                raise ValueError(f"{name} {value:g}: expected a number from {low:g} to {high:g}{unit}")

    @property
    def needs_templates(self) -> bool:
        """Whether it needs landmarks of other motions than the reference's own."""
        return any(part is not None for part in (self.strength, self.yaw, self.pitch, self.driving))

    def beyond_known(self) -> list[str]:
        """Return a warning for each value outside of what an IMR is trained with: landmarks are extrapolated there."""
        warnings = []
        for name, (low, high) in _KNOWN.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                unit = "" if name == "strength" else " degrees"
                warnings.append(f"{name} {value:g} is beyond what the adapter knows, {low:g} to {high:g}{unit}")
        return warnings


def contradiction(face_prompt: str | None, *, yaw: float | None, driving: bool) -> str:
    """Return why a face prompt cannot be followed together with a yaw or a driving photo; "" where it can."""
    if not face_prompt:
        return ""
    if driving:
        return f"a driving photo and the face prompt {face_prompt!r}: both say expression and pose; give one of them"
    if yaw is not None and parse(face_prompt).pose is not None:
        return f"yaw {yaw:g} and the face prompt {face_prompt!r}, which names a pose: give one of them"
    return ""

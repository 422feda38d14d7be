"""The words of a face prompt: seven expressions and five head poses.

A face prompt states expression and pose ("sad, slightly turned to the left"); the text prompt states everything else.
Directions are those of the picture: "left" is the viewer's left. Yaw is in degrees, positive if the face turns to the
right of the picture; pitch is positive upwards; roll is positive clockwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EXPRESSIONS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted")
POSES: tuple[str, ...] = ("left", "half_left", "front", "half_right", "right")

POSE_YAW: dict[str, float] = {"left": -60.0, "half_left": -30.0, "front": 0.0, "half_right": 30.0, "right": 60.0}
POSE_PHRASES: dict[str, str] = {
    "left": "turned to the left",
    "half_left": "slightly turned to the left",
    "front": "facing the camera",
    "half_right": "slightly turned to the right",
    "right": "turned to the right",
}

_EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
    "neutral": ("neutral", "calm", "expressionless", "relaxed", "serious"),
    "happy": ("happy", "smiling", "smile", "laughing", "joyful", "cheerful"),
    "sad": ("sad", "unhappy", "sorrowful", "crying", "gloomy"),
    "angry": ("angry", "furious", "mad", "annoyed", "enraged"),
    "surprised": ("surprised", "astonished", "amazed", "shocked"),
    "fearful": ("fearful", "afraid", "scared", "frightened", "terrified"),
    "disgusted": ("disgusted", "disgust", "revolted", "nauseated"),
}
# What published code calls the expression of a source, and the words of its requests where they are not ours.
_PUBLISHED_WORDS: dict[str, str] = {
    **dict(zip(EXPRESSIONS, EXPRESSIONS, strict=True)),
    **{"angry": "anger", "surprised": "surprise", "fearful": "fear", "disgusted": "disgust"},
}
_REQUESTED_EXPRESSIONS = {"fearful": "afraid"}
_REQUESTED_POSES = {
    "left": "fully turned to the left",
    "front": "front view",
    "right": "fully turned to the right",
}
# Published code calls a face frontal, and level, up to this angle in degrees.
_LEVEL = 10.0
_SLIGHTLY = re.compile(r"\b(slightly|half|a little|three[- ]quarter)\b")
_SIDE = re.compile(r"\b(left|right)\b")
_FRONT = re.compile(r"\b(front|frontal|facing|camera|straight|forward|ahead)\b")


@dataclass(frozen=True)
class FacePrompt:
    """Expression and pose of a face prompt; None for what it does not name."""

    expression: str | None
    pose: str | None


def compose(expression: str | None, pose: str | None) -> str:
    """Return the canonical face prompt, for example "sad, slightly turned to the left".

    It says nothing about what is unknown (None), and is empty where both are.
    """
    return ", ".join(part for part in (expression, POSE_PHRASES[pose] if pose else None) if part)


def describe_as_published(
    expression: str | None, pose: str | None, yaw: float | None = None, pitch: float | None = None
) -> str:
    """Return what published code writes of a source, for example "in a happy expression, facing up, in side view".

    An expression that is not known counts as neutral; the yaw of a pose stands for an angle (degrees) that is not.
    """
    yaw = POSE_YAW[pose or "front"] if yaw is None else yaw
    steep = abs(pitch or 0.0) > _LEVEL
    parts = [f"in a {_PUBLISHED_WORDS[expression or 'neutral']} expression"]
    parts += [f"facing {'up' if (pitch or 0.0) > 0 else 'down'}"] if steep else []
    return ", ".join([*parts, f"in {'front' if abs(yaw) < _LEVEL else 'side'} view"])


def request_as_published(expression: str, pose: str) -> str:
    """Return a request in the words of the published training on KDEF: seven expressions times five poses."""
    asked = _REQUESTED_POSES.get(pose, POSE_PHRASES[pose])
    return f"the expression is {_REQUESTED_EXPRESSIONS.get(expression, expression)}, the face is {asked}"


def parse(text: str) -> FacePrompt:
    """Return expression and pose of a face prompt; the first expression and the first side in the text count."""
    lowered = text.lower()
    found = [
        (match.start(), expression)
        for expression, words in _EXPRESSION_WORDS.items()
        for word in words
        if (match := re.search(rf"\b{word}\b", lowered))
    ]
    expression = min(found)[1] if found else None
    pose: str | None = None
    if side := _SIDE.search(lowered):
        pose = f"half_{side.group(1)}" if _SLIGHTLY.search(lowered) else side.group(1)
    elif _FRONT.search(lowered):
        pose = "front"
    return FacePrompt(expression, pose)


def pose_of_yaw(yaw: float) -> str:
    """Return the pose whose centre is nearest to `yaw` (degrees, positive to the picture's right)."""
    return min(POSES, key=lambda pose: abs(POSE_YAW[pose] - yaw))

"""The words of a face prompt: seven expressions and five head poses.

A face prompt states expression and pose ("sad, slightly turned to the left"); the text prompt states everything else.
`parse` reads what it states, and collects the words that say nothing of either; `parse_request` refuses contradictions.
Directions are those of the picture: "left" is the viewer's left. Yaw is in degrees, positive if the face turns to the
right of the picture; pitch is positive upwards; roll is positive clockwise.
"""

from __future__ import annotations

import re
import unicodedata
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
    "happy": ("happy", "smiling", "smile", "laughing", "joyful", "cheerful", "happiness"),
    "sad": ("sad", "unhappy", "sorrowful", "crying", "gloomy", "sadness"),
    "angry": ("angry", "furious", "mad", "annoyed", "enraged", "anger"),
    "surprised": ("surprised", "astonished", "amazed", "shocked", "surprise"),
    "fearful": ("fearful", "afraid", "scared", "frightened", "terrified", "fear"),
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
_CHOICES = f"one expression ({', '.join(EXPRESSIONS)}) and one pose ({', '.join(POSE_PHRASES.values())})"
# Published code calls a face frontal, and level, up to this angle in degrees.
_LEVEL = 10.0
_EXPRESSION_OF = {word: expression for expression, words in _EXPRESSION_WORDS.items() for word in words}
_SIDES = ("left", "right")
_SLIGHTLY = {"slightly", "half", "little", "bit", "somewhat", "three", "quarter", "quarters"}
_FRONT = {"front", "frontal", "camera", "viewer", "straight", "forward", "ahead"}
# A head that leans to a side is not turned to it.
_TILTS = {"tilt", "tilted", "tilting", "lean", "leaning", "leaned"}
_NEGATIONS = {"not", "no", "non", "never", "without", "neither", "nor", "cannot"}
# Words that mean nothing by themselves, and words that mean something only beside an expression or a pose.
_FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an the in is are be of to at on his her their its he she they it person man woman face facial expression "
        "expressions emotion mood and with or",
    )
)
_LINKS = re.compile(
    r"looks?|looking|turn(?:s|ed|ing)?|rotated|facing|head|view|profile|fully|completely|direct(?:ly)?|side|hand"
    r"|direction|towards?|from|show(?:s|ing)"
)
_PARTS = re.compile(r"[,;.:/|\n]|\b(?:and|but|with|or)\b")
_TOKENS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")


@dataclass(frozen=True)
class FacePrompt:
    """Expression and pose of a face prompt; None for what it does not name.

    `unused`: the words that name neither, in the order of the text. `fault`: why nothing can be drawn by it, as it
    contradicts itself or says what a face must not show; "" for nothing.
    """

    expression: str | None
    pose: str | None
    unused: tuple[str, ...] = ()
    fault: str = ""

    @property
    def note(self) -> str:
        """Return a sentence about the words that are not used, "" for none."""
        words = ", ".join(repr(word) for word in self.unused)
        return f"not used: {words}; a face prompt takes {_CHOICES}" if words else ""


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
    """Return expression and pose of a face prompt; the first of each in the text counts."""
    parts = [_read_part(part) for part in _split(text.lower())]
    expressions = [found for part in parts for found in part.expressions]
    poses = [part.pose for part in parts if part.pose] + [pose for part in parts for pose in part.other_poses]
    fault = next((part.negated for part in parts if part.negated), "")
    fault = fault and f"{fault!r} says what must not be seen: name what to draw"
    for kind, names in (
        ("expressions", [f"{word!r}" for word, _ in _distinct(expressions)]),
        ("head poses", [f"{POSE_PHRASES[pose]!r}" for pose in dict.fromkeys(poses)]),
    ):
        if len(names) > 1 and not fault:
            fault = f"{' and '.join(names)} are {len(names)} {kind}: name one"
    unused = tuple(words for part in parts for words in part.unused)
    return FacePrompt(expressions[0][1] if expressions else None, poses[0] if poses else None, unused, fault)


def parse_request(text: str) -> FacePrompt:
    """Return expression and pose that a face prompt asks for; words that name neither are in its `unused`.

    Raise ValueError where it names none of both, more than one expression or pose ("happy and sad"), or what a face
    must not show ("not happy"): whichever was drawn would not be what was asked for.
    """
    motion = parse(text)
    if motion.fault:
        raise ValueError(f"face prompt {text!r}: {motion.fault}; it takes {_CHOICES}")
    if motion.expression is None and motion.pose is None:
        raise ValueError(
            f"face prompt {text!r} names no expression ({', '.join(EXPRESSIONS)}) and no pose "
            f"({', '.join(POSE_PHRASES.values())})"
        )
    return motion


@dataclass(frozen=True)
class _Part:
    """What a part of a face prompt, between commas, names."""

    expressions: tuple[tuple[str, str], ...]
    pose: str | None
    other_poses: tuple[str, ...]
    unused: tuple[str, ...]
    negated: str


def _split(text: str) -> list[str]:
    return [part for part in _PARTS.split(text) if part.strip()]


def _distinct(expressions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the first word of each expression."""
    return list({expression: (word, expression) for word, expression in reversed(expressions)}.values())[::-1]


def _read_part(part: str) -> _Part:
    tokens = [match for match in _TOKENS.finditer(part) if _is_word(match[0])]
    words = [match[0] for match in tokens]
    expressions = tuple((word, _EXPRESSION_OF[word]) for word in words if word in _EXPRESSION_OF)
    used = {*_FILLERS, *_EXPRESSION_OF}
    poses: list[str] = []
    if not _TILTS.intersection(words):
        half = "half_" if _SLIGHTLY.intersection(words) else ""
        poses = [f"{half}{word}" for word in dict.fromkeys(words) if word in _SIDES]
        # "Slightly" belongs to a side.
        used |= {*_SIDES, *_SLIGHTLY} if poses else set()
        if _FRONT.intersection(words):
            poses.append("front")
            used |= _FRONT
    named = bool(expressions or poses)
    used |= {word for word in words if _LINKS.fullmatch(word)} if named else set()
    negated = part.strip() if named and any(_negates(word) for word in words) else ""
    return _Part(expressions, poses[0] if poses else None, tuple(poses[1:]), _runs(part, tokens, used), negated)


def _is_word(token: str) -> bool:
    # Punctuation and combining marks say nothing; symbols, such as a smiling face, are words that are not known.
    return token[0].isalnum() or unicodedata.category(token[0]).startswith("S")


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith(("n't", "n’t"))


def _runs(part: str, tokens: list[re.Match[str]], used: set[str]) -> tuple[str, ...]:
    """Return the words that are not in `used`; those with nothing but fillers between them are returned together."""
    spans: list[list[int]] = []
    for place, token in enumerate(tokens):
        if token[0] in used:
            continue
        if spans and all(other[0] in _FILLERS for other in tokens[spans[-1][2] + 1 : place]):
            spans[-1][1:] = token.end(), place
        else:
            spans.append([token.start(), token.end(), place])
    return tuple(part[start:end] for start, end, _ in spans)


def pose_of_yaw(yaw: float) -> str:
    """Return the pose whose centre is nearest to `yaw` (degrees, positive to the picture's right)."""
    return min(POSES, key=lambda pose: abs(POSE_YAW[pose] - yaw))

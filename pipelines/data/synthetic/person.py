"""Sample the identity of a procedural person, which does not depend on any photo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

SKIN_TONES: tuple[tuple[int, int, int], ...] = (
    (250, 218, 196), (240, 194, 164), (228, 172, 136), (206, 146, 106), (178, 118, 80),
    (146, 92, 60), (118, 76, 52), (90, 57, 42),
)  # fmt: skip
HAIR_COLOURS: tuple[tuple[int, int, int], ...] = (
    (26, 22, 24), (58, 36, 24), (98, 60, 32), (142, 84, 42), (168, 66, 30),
    (204, 154, 82), (232, 196, 112), (150, 148, 150), (224, 222, 218), (120, 30, 40),
)  # fmt: skip
EYE_COLOURS: tuple[tuple[int, int, int], ...] = (
    (62, 36, 20), (104, 64, 30), (140, 104, 44), (64, 130, 72), (58, 118, 190),
    (110, 160, 200), (112, 120, 128),
)  # fmt: skip
GLASSES_COLOURS: tuple[tuple[int, int, int], ...] = (
    (24, 24, 28), (196, 156, 48), (176, 34, 36), (38, 62, 160), (116, 66, 34),
    (172, 176, 184),
)  # fmt: skip
HAIR_STYLES: tuple[str, ...] = (
    "bald", "buzz", "short", "side_part", "spiky", "bob", "long_straight",
    "long_wavy", "afro", "curly", "bun", "ponytail", "pigtails",
)  # fmt: skip
BEARD_STYLES: tuple[str, ...] = ("none", "stubble", "moustache", "goatee", "full")
GLASSES_STYLES: tuple[str, ...] = ("none", "round", "square", "wide")

_SKIN_SHARES = (0.15, 0.17, 0.16, 0.14, 0.12, 0.11, 0.09, 0.06)
_FEMININE_HAIR = (0.01, 0.03, 0.08, 0.06, 0.03, 0.14, 0.15, 0.14, 0.07, 0.09, 0.08, 0.07, 0.05)
_MASCULINE_HAIR = (0.13, 0.15, 0.20, 0.16, 0.11, 0.03, 0.05, 0.04, 0.05, 0.06, 0.01, 0.01, 0.0)


def _within(low: float, high: float, feminine: tuple[float, float] | None = None) -> dict[str, tuple[float, float]]:
    """Return the range of a uniformly distributed parameter for each presentation."""
    return {"masculine": (low, high), "feminine": feminine or (low, high)}


# Whose people are whose; no person is in two.
NAMESPACES: dict[str, str] = {
    "demo": "`synthesize` and the demo; no network that ships has seen them",
    "dataset": "the profile showcase: the shipped adapter was trained on them; they are named person_00000, …",
    "foundation": "the other networks that ship were trained on them",
    "page": "examples on the page",
    "example": "the example of a registered version",
    "references": "the measurement of several references of one person",
    "tests": "tests",
}


@dataclass(frozen=True)
class Person:
    """The identity parameters of a person.

    Lengths and tilts are in half head heights (crown to chin = 2); all others are factors around 1, shares in [0, 1] or
    offsets in [-1, 1]. Reports group people by `skin_tone` (index into SKIN_TONES, light to dark) and `presentation`
    ("masculine" or "feminine").
    """

    key: str
    presentation: str
    skin_tone: int
    skin_shift: float = field(metadata=_within(-0.5, 0.5))
    skin_warmth: float = field(metadata=_within(-1.0, 1.0))
    head_width: float = field(metadata=_within(0.66, 0.80))
    head_height: float = field(metadata=_within(0.94, 1.05))
    forehead: float = field(metadata=_within(0.92, 1.08))
    cheek: float = field(metadata=_within(0.92, 1.06))
    jaw_width: float = field(metadata=_within(0.88, 1.12, feminine=(0.80, 1.0)))
    jaw_squareness: float = field(metadata=_within(0.2, 1.0, feminine=(0.0, 0.55)))
    chin_length: float = field(metadata=_within(-0.06, 0.07))
    chin_width: float = field(metadata=_within(0.85, 1.4, feminine=(0.7, 1.15)))
    eye_size: float = field(metadata=_within(0.86, 1.18))
    eye_height: float = field(metadata=_within(0.8, 1.2))
    eye_spacing: float = field(metadata=_within(0.90, 1.10))
    eye_tilt: float = field(metadata=_within(-0.05, 0.06))
    eye_colour: int
    iris_size: float = field(metadata=_within(0.9, 1.15))
    lashes: float = field(metadata=_within(0.0, 0.35, feminine=(0.5, 1.0)))
    brow_thickness: float = field(metadata=_within(0.8, 1.5, feminine=(0.55, 1.0)))
    brow_tilt: float = field(metadata=_within(-0.05, 0.05))
    brow_height: float = field(metadata=_within(-0.04, 0.05))
    brow_arch: float = field(metadata=_within(0.2, 1.0))
    brow_shade: float = field(metadata=_within(0.55, 1.0))
    nose_length: float = field(metadata=_within(0.86, 1.14))
    nose_width: float = field(metadata=_within(0.74, 1.3))
    nose_bridge: float = field(metadata=_within(0.7, 1.3))
    nose_tip: float = field(metadata=_within(-1.0, 1.0))
    mouth_width: float = field(metadata=_within(0.84, 1.18))
    mouth_height: float = field(metadata=_within(-0.03, 0.04))
    lip_fullness: float = field(metadata=_within(0.5, 1.15, feminine=(0.75, 1.5)))
    lip_balance: float = field(metadata=_within(0.8, 1.25))
    lip_redness: float = field(metadata=_within(0.0, 0.4, feminine=(0.3, 1.0)))
    blush: float = field(metadata=_within(0.0, 1.0))
    ear_size: float = field(metadata=_within(0.8, 1.25))
    ear_angle: float = field(metadata=_within(0.0, 1.0))
    hair_style: str
    hair_colour: int
    hair_shift: float = field(metadata=_within(-1.0, 1.0))
    hair_length: float = field(metadata=_within(0.0, 1.0))
    hair_volume: float = field(metadata=_within(0.0, 1.0))
    hairline: float = field(metadata=_within(-0.08, 0.06))
    fringe: float = field(metadata=_within(0.0, 1.0))
    part: float
    beard: str
    beard_density: float = field(metadata=_within(0.6, 1.0))
    freckles: float
    mole_x: float = field(metadata=_within(-0.42, 0.42))
    mole_y: float = field(metadata=_within(0.18, 0.82))
    mole_size: float
    glasses: str
    glasses_colour: int
    glasses_size: float = field(metadata=_within(0.9, 1.15))
    wrinkles: float
    neck_width: float = field(metadata=_within(0.96, 1.2, feminine=(0.82, 0.98)))
    texture_seed: int

    @staticmethod
    def sample(namespace: str, seed: int, index: int) -> Person:
        """Sample person `index` of a namespace; the same arguments always give the same person.

        Namespaces have independent random streams: no person of "foundation" occurs in "dataset".
        """
        return _sample(stream(namespace, seed, index), f"{namespace}:{seed}:{index}")


def stream(namespace: str, seed: int, index: int) -> np.random.Generator:
    """Return the random stream of a namespace, seed and index, the same on every machine."""
    digest = hashlib.sha256(namespace.encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([*words, seed, index]))


def _sample(rng: np.random.Generator, key: str) -> Person:
    feminine = rng.random() < 0.5
    skin_tone = int(rng.choice(len(SKIN_TONES), p=np.array(_SKIN_SHARES)))
    style = str(rng.choice(HAIR_STYLES, p=np.array(_FEMININE_HAIR if feminine else _MASCULINE_HAIR)))
    hair = np.ones(len(HAIR_COLOURS))
    if skin_tone >= 4:
        hair = np.array([4.0, 3.0, 2.0, 1.0, 0.4, 0.3, 0.3, 0.8, 0.7, 0.6])
    eyes = np.ones(len(EYE_COLOURS)) if skin_tone < 4 else np.array([4, 3, 2, 0.6, 0.5, 0.4, 0.5])
    beards = (1.0, 0.0, 0.0, 0.0, 0.0) if feminine else (0.42, 0.14, 0.12, 0.13, 0.19)
    has_mole = rng.random() < 0.4
    side = 1.0 if rng.random() < 0.5 else -1.0

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    others: dict[str, Callable[[], Any]] = {
        "eye_colour": lambda: int(rng.choice(len(EYE_COLOURS), p=eyes / eyes.sum())),
        "hair_colour": lambda: int(rng.choice(len(HAIR_COLOURS), p=hair / hair.sum())),
        "part": lambda: side * between(0.3, 1.0),
        "beard": lambda: str(rng.choice(BEARD_STYLES, p=np.array(beards))),
        "freckles": lambda: between(0.4, 1.0) if rng.random() < 0.22 else 0.0,
        "mole_size": lambda: between(0.7, 1.4) if has_mole else 0.0,
        "glasses": lambda: str(rng.choice(GLASSES_STYLES, p=np.array([0.68, 0.12, 0.11, 0.09]))),
        "glasses_colour": lambda: int(rng.integers(len(GLASSES_COLOURS))),
        "wrinkles": lambda: between(0.0, 1.0) if rng.random() < 0.35 else 0.0,
        "texture_seed": lambda: int(rng.integers(2**31)),
    }
    presentation = "feminine" if feminine else "masculine"
    values: dict[str, Any] = {"key": key, "presentation": presentation, "skin_tone": skin_tone, "hair_style": style}
    # The order of the fields determines the random values, and so the person.
    for item in fields(Person):
        if item.metadata:
            values[item.name] = between(*item.metadata[presentation])
        elif item.name not in values:
            values[item.name] = others[item.name]()
    return Person(**values)

"""Who is drawn: the identity of one procedural person, independent of any photo of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

SKIN_TONES: tuple[tuple[int, int, int], ...] = (
    (250, 218, 196),
    (240, 194, 164),
    (228, 172, 136),
    (206, 146, 106),
    (178, 118, 80),
    (146, 92, 60),
    (118, 76, 52),
    (90, 57, 42),
)
HAIR_COLOURS: tuple[tuple[int, int, int], ...] = (
    (26, 22, 24),
    (58, 36, 24),
    (98, 60, 32),
    (142, 84, 42),
    (168, 66, 30),
    (204, 154, 82),
    (232, 196, 112),
    (150, 148, 150),
    (224, 222, 218),
    (120, 30, 40),
)
EYE_COLOURS: tuple[tuple[int, int, int], ...] = (
    (62, 36, 20),
    (104, 64, 30),
    (140, 104, 44),
    (64, 130, 72),
    (58, 118, 190),
    (110, 160, 200),
    (112, 120, 128),
)
GLASSES_COLOURS: tuple[tuple[int, int, int], ...] = (
    (24, 24, 28),
    (196, 156, 48),
    (176, 34, 36),
    (38, 62, 160),
    (116, 66, 34),
    (172, 176, 184),
)
HAIR_STYLES: tuple[str, ...] = (
    "bald",
    "buzz",
    "short",
    "side_part",
    "spiky",
    "bob",
    "long_straight",
    "long_wavy",
    "afro",
    "curly",
    "bun",
    "ponytail",
    "pigtails",
)
BEARD_STYLES: tuple[str, ...] = ("none", "stubble", "moustache", "goatee", "full")
GLASSES_STYLES: tuple[str, ...] = ("none", "round", "square", "wide")

_SKIN_SHARES = (0.15, 0.17, 0.16, 0.14, 0.12, 0.11, 0.09, 0.06)
_FEMININE_HAIR = (0.01, 0.03, 0.08, 0.06, 0.03, 0.14, 0.15, 0.14, 0.07, 0.09, 0.08, 0.07, 0.05)
_MASCULINE_HAIR = (0.13, 0.15, 0.20, 0.16, 0.11, 0.03, 0.05, 0.04, 0.05, 0.06, 0.01, 0.01, 0.0)


@dataclass(frozen=True)
class Person:
    """The identity parameters of a person.

    Lengths are in half head heights (crown to chin = 2), angles in degrees; names without a unit are factors
    around 1 or shares in [0, 1]. `skin_tone` (index into SKIN_TONES, light to dark) and `presentation`
    ("masculine" or "feminine") are the apparent-group attributes of reports.
    """

    key: str
    presentation: str
    skin_tone: int
    skin_shift: float
    skin_warmth: float
    head_width: float
    head_height: float
    forehead: float
    cheek: float
    jaw_width: float
    jaw_squareness: float
    chin_length: float
    chin_width: float
    eye_size: float
    eye_height: float
    eye_spacing: float
    eye_tilt: float
    eye_colour: int
    iris_size: float
    lashes: float
    brow_thickness: float
    brow_tilt: float
    brow_height: float
    brow_arch: float
    brow_shade: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    nose_tip: float
    mouth_width: float
    mouth_height: float
    lip_fullness: float
    lip_balance: float
    lip_redness: float
    blush: float
    ear_size: float
    ear_angle: float
    hair_style: str
    hair_colour: int
    hair_shift: float
    hair_length: float
    hair_volume: float
    hairline: float
    fringe: float
    part: float
    beard: str
    beard_density: float
    freckles: float
    mole_x: float
    mole_y: float
    mole_size: float
    glasses: str
    glasses_colour: int
    glasses_size: float
    wrinkles: float
    neck_width: float
    texture_seed: int

    @staticmethod
    def sample(namespace: str, seed: int, index: int) -> Person:
        """Draw person `index` of a namespace; the same arguments always give the same person.

        Namespaces are disjoint streams: nobody of "foundation" is ever part of a "dataset".
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

    return Person(
        key=key,
        presentation="feminine" if feminine else "masculine",
        skin_tone=skin_tone,
        skin_shift=between(-0.5, 0.5),
        skin_warmth=between(-1.0, 1.0),
        head_width=between(0.66, 0.80),
        head_height=between(0.94, 1.05),
        forehead=between(0.92, 1.08),
        cheek=between(0.92, 1.06),
        jaw_width=between(0.80, 1.0) if feminine else between(0.88, 1.12),
        jaw_squareness=between(0.0, 0.55) if feminine else between(0.2, 1.0),
        chin_length=between(-0.06, 0.07),
        chin_width=between(0.7, 1.15) if feminine else between(0.85, 1.4),
        eye_size=between(0.86, 1.18),
        eye_height=between(0.8, 1.2),
        eye_spacing=between(0.90, 1.10),
        eye_tilt=between(-0.05, 0.06),
        eye_colour=int(rng.choice(len(EYE_COLOURS), p=eyes / eyes.sum())),
        iris_size=between(0.9, 1.15),
        lashes=between(0.5, 1.0) if feminine else between(0.0, 0.35),
        brow_thickness=between(0.55, 1.0) if feminine else between(0.8, 1.5),
        brow_tilt=between(-0.05, 0.05),
        brow_height=between(-0.04, 0.05),
        brow_arch=between(0.2, 1.0),
        brow_shade=between(0.55, 1.0),
        nose_length=between(0.86, 1.14),
        nose_width=between(0.74, 1.3),
        nose_bridge=between(0.7, 1.3),
        nose_tip=between(-1.0, 1.0),
        mouth_width=between(0.84, 1.18),
        mouth_height=between(-0.03, 0.04),
        lip_fullness=between(0.75, 1.5) if feminine else between(0.5, 1.15),
        lip_balance=between(0.8, 1.25),
        lip_redness=between(0.3, 1.0) if feminine else between(0.0, 0.4),
        blush=between(0.0, 1.0),
        ear_size=between(0.8, 1.25),
        ear_angle=between(0.0, 1.0),
        hair_style=style,
        hair_colour=int(rng.choice(len(HAIR_COLOURS), p=hair / hair.sum())),
        hair_shift=between(-1.0, 1.0),
        hair_length=between(0.0, 1.0),
        hair_volume=between(0.0, 1.0),
        hairline=between(-0.08, 0.06),
        fringe=between(0.0, 1.0),
        part=side * between(0.3, 1.0),
        beard=str(rng.choice(BEARD_STYLES, p=np.array(beards))),
        beard_density=between(0.6, 1.0),
        freckles=between(0.4, 1.0) if rng.random() < 0.22 else 0.0,
        mole_x=between(-0.42, 0.42),
        mole_y=between(0.18, 0.82),
        mole_size=between(0.7, 1.4) if has_mole else 0.0,
        glasses=str(rng.choice(GLASSES_STYLES, p=np.array([0.68, 0.12, 0.11, 0.09]))),
        glasses_colour=int(rng.integers(len(GLASSES_COLOURS))),
        glasses_size=between(0.9, 1.15),
        wrinkles=between(0.0, 1.0) if rng.random() < 0.35 else 0.0,
        neck_width=between(0.82, 0.98) if feminine else between(0.96, 1.2),
        texture_seed=int(rng.integers(2**31)),
    )

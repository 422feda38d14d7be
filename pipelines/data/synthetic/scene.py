"""Sample what one photo shows besides the person: expression, head pose, clothes, background, light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.face.face_prompts import POSE_YAW, compose

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (204, 36, 40),
    "orange": (240, 132, 32),
    "yellow": (246, 214, 56),
    "green": (44, 150, 66),
    "blue": (44, 92, 206),
    "purple": (128, 58, 170),
    "pink": (244, 142, 186),
    "brown": (122, 76, 44),
    "black": (34, 34, 40),
    "gray": (134, 136, 142),
    "white": (242, 242, 242),
}
SHIRT_STYLES: tuple[str, ...] = ("t-shirt", "hoodie", "striped shirt", "shirt", "sweater")
PLACES: dict[str, str] = {
    "beach": "on a beach",
    "park": "in a park",
    "city": "in a city",
    "mountains": "in the mountains",
    "library": "in a library",
    "night": "at night under the stars",
}
YAW_JITTER, PITCH_JITTER, ROLL_JITTER = 7.0, 6.0, 5.0
INTENSITY = (0.75, 1.15)
_PLACE_SHARE = 0.2


@dataclass(frozen=True)
class Scene:
    """The parameters of one photo of a person.

    Angles in degrees (yaw > 0: the face turns to the picture's right; pitch > 0: up; roll > 0: clockwise);
    `intensity` scales the expression, 1 = full; offsets move the head in shares of the picture's side, `scale` is a
    factor of its size. `place` is a key of PLACES, or empty for a background of `background_colour`.
    """

    expression: str
    pose: str
    intensity: float
    yaw: float
    pitch: float
    roll: float
    noun: str
    shirt_colour: str
    shirt_style: str
    background_colour: str
    background_kind: str
    place: str
    offset_x: float
    offset_y: float
    scale: float
    light_yaw: float
    light_pitch: float
    light_strength: float
    gaze_x: float
    gaze_y: float
    wording: int
    texture_seed: int

    @staticmethod
    def sample(rng: np.random.Generator, expression: str, pose: str, noun: str = "person") -> Scene:
        """Sample a scene with `expression` and a yaw near that of `pose`; the prompt says `noun` or "person"."""

        def between(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        names = tuple(COLOURS)
        shirt = str(rng.choice(names))
        background = str(rng.choice([name for name in names if name != shirt]))
        in_place = rng.random() < _PLACE_SHARE
        return Scene(
            expression=expression,
            pose=pose,
            intensity=between(*INTENSITY),
            yaw=POSE_YAW[pose] + between(-YAW_JITTER, YAW_JITTER),
            pitch=between(-PITCH_JITTER, PITCH_JITTER),
            roll=between(-ROLL_JITTER, ROLL_JITTER),
            noun=noun if rng.random() < 0.5 else "person",
            shirt_colour=shirt,
            shirt_style=str(rng.choice(SHIRT_STYLES, p=np.array([0.4, 0.15, 0.15, 0.15, 0.15]))),
            background_colour=background,
            background_kind=str(rng.choice(["plain", "gradient", "spot"])),
            place=str(rng.choice(list(PLACES))) if in_place else "",
            offset_x=between(-0.025, 0.025),
            offset_y=between(-0.02, 0.02),
            scale=between(0.94, 1.05),
            light_yaw=between(-45.0, 45.0),
            light_pitch=between(15.0, 50.0),
            light_strength=between(0.75, 1.1),
            gaze_x=between(-0.25, 0.25),
            gaze_y=between(-0.15, 0.15),
            wording=int(rng.integers(3)),
            texture_seed=int(rng.integers(2**31)),
        )

    @property
    def clothes(self) -> str:
        """The clothes, for example "a red t-shirt"."""
        article = "an" if self.shirt_colour[0] in "aeiou" else "a"
        return f"{article} {self.shirt_colour} {self.shirt_style}"

    @property
    def setting(self) -> str:
        """The background or place, for example "blue background" or "on a beach"."""
        return PLACES[self.place] if self.place else f"{self.background_colour} background"

    @property
    def prompt(self) -> str:
        """The text prompt: everything except expression and pose."""
        opening = (f"a photo of a {self.noun} wearing", f"a portrait of a {self.noun} in", f"a {self.noun} wearing")
        return f"{opening[self.wording]} {self.clothes}, {self.setting}"

    @property
    def face_prompt(self) -> str:
        """The face prompt: expression and pose, for example "sad, turned to the left"."""
        return compose(self.expression, self.pose)

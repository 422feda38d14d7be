"""Draw a picture of one or more people in a scene, with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from model.face.people_prompts import describe_people
from pipelines.data.synthetic.background import draw_background
from pipelines.data.synthetic.body import draw_body
from pipelines.data.synthetic.camera import Array, Camera
from pipelines.data.synthetic.canvas import Canvas, Image
from pipelines.data.synthetic.features import brows, eyes, mix, mouth, nose
from pipelines.data.synthetic.glasses import draw_glasses
from pipelines.data.synthetic.hair import COVERS_EARS, Hair
from pipelines.data.synthetic.head import Head
from pipelines.data.synthetic.landmarks import face_box, keypoints5, landmarks68
from pipelines.data.synthetic.motion import motion
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.places import Place, Reach
from pipelines.data.synthetic.scene import Scene
from pipelines.data.synthetic.skin import beard, ear, light_direction, marks, paint_head, relief, skin_colour, wrinkles

UNIT = 0.345
"""Half a head's height as a share of the picture's side, before the scale of the scene."""
_CENTRE = (0.5, 0.47)
Size = tuple[int, int]


@dataclass(frozen=True)
class Truth:
    """The ground truth about one person in a picture.

    `landmarks` (68, 2), `keypoints` (5, 2: eye centres, nose tip, mouth corners, each from the picture's left to its
    right) and `box` (4: x0, y0, x1, y1) float32 in pixels; angles in degrees.
    """

    landmarks: Array
    keypoints: Array
    box: Array
    expression: str
    pose: str
    yaw: float
    pitch: float
    roll: float
    prompt: str
    face_prompt: str


@dataclass(frozen=True)
class Picture(Truth):
    """A picture, `image` (size, size, 3) uint8 RGB, and the ground truth about the person in it."""

    image: Image


def render(person: Person, scene: Scene, size: int) -> Picture:
    """Draw `person` in `scene`, size × size pixels; sizes differ only in resolution."""
    canvas, factor = _canvas(size, size)
    draw_background(canvas, scene)
    head = _head(person, scene, canvas.side)
    _draw_people(canvas, [(head, scene)])
    return Picture(**vars(_truth(head, scene, factor, scene.prompt)), image=_finish(canvas, size, size))


def truth(person: Person, scene: Scene, size: int) -> Truth:
    """Return the ground truth of `render` with the same arguments, without drawing."""
    return _truth(_head(person, scene, size), scene, 1, scene.prompt)


def _head(person: Person, scene: Scene, side: int) -> Head:
    # A photographer centres the face, not the middle of the skull.
    sway = -0.055 * float(np.sin(np.radians(scene.yaw)))
    centre = ((_CENTRE[0] + scene.offset_x + sway) * side, (_CENTRE[1] + scene.offset_y) * side)
    return _place(person, scene, UNIT * scene.scale * side, centre)


def _place(person: Person, scene: Scene, unit: float, centre: tuple[float, float]) -> Head:
    camera = Camera.facing(scene.yaw, scene.pitch, scene.roll, unit, centre)
    return Head(person, motion(scene.expression, scene.intensity), camera)


def render_group(people: list[tuple[Person, Scene]], size: int) -> tuple[Image, list[Truth]]:
    """Draw two or three people side by side in one picture.

    Return the picture and the ground truth about each person, from the picture's left to its right. All people share
    one prompt, and the first scene's background and light.
    """
    if not 2 <= len(people) <= 3:
        raise ValueError(f"a group has {len(people)} people, expected 2 or 3")
    count = len(people)
    canvas, factor = _canvas(size, size)
    draw_background(canvas, people[0][1])
    side = canvas.side
    unit = UNIT * (0.78 if count == 2 else 0.58)
    heads = []
    for index, (person, scene) in enumerate(people):
        x = (index + 0.5) / count + 0.5 * scene.offset_x
        centre = (x * side, (0.53 + 0.5 * scene.offset_y) * side)
        heads.append(_place(person, scene, unit * scene.scale * side, centre))
        _draw_people(canvas, [(heads[-1], _lit(scene, people[0][1]))])
    prompt = group_prompt([scene for _, scene in people])
    truths = [_truth(head, scene, factor, prompt) for head, (_, scene) in zip(heads, people, strict=True)]
    return _finish(canvas, size, size), truths


def render_placed(people: list[tuple[Person, Scene]], places: list[Place], size: Size) -> tuple[Image, list[Truth]]:
    """Draw people whose heads are at `places`, from the picture's left to its right, in a picture of width and height.

    Bodies are behind all heads, larger heads in front of smaller ones. All share one prompt, which names them by place,
    and the first scene's background and light.
    """
    canvas, factor = _canvas(*size)
    first = people[0][1]
    draw_background(canvas, first)
    heads = [
        _place(person, scene, place.unit * factor, (place.x * factor, place.y * factor))
        for (person, scene), place in zip(people, places, strict=True)
    ]
    drawn = [(head, _lit(scene, first)) for head, (_, scene) in zip(heads, people, strict=True)]
    _draw_people(canvas, sorted(drawn, key=lambda one: one[0].camera.unit))
    scenes = [scene for _, scene in people]
    named = [f"a {scene.noun} wearing {scene.clothes}" for scene in scenes]
    prompt = first.prompt if len(people) == 1 else describe_people(named, first.setting)
    truths = [_truth(head, scene, factor, prompt) for head, scene in zip(heads, scenes, strict=True)]
    return _finish(canvas, *size), truths


def reach(person: Person, scene: Scene) -> Reach:
    """Return how far face and hair of `person` in `scene` extend from the middle of the head."""
    head = _place(person, scene, 1.0, (0.0, 0.0))
    face = face_box(head, landmarks68(head))
    outline = np.concatenate(
        [Hair(head, np.zeros(3), 1.0).outline(), head.camera.project(head.mesh()[0])[0].reshape(-1, 2)]
    )
    low, high = outline.min(0), outline.max(0)
    left, right = -float(face[0]), float(face[2])
    return Reach(left, right, max(-float(low[0]), left), max(float(high[0]), right), -float(low[1]))


def _lit(scene: Scene, first: Scene) -> Scene:
    """Return `scene` in the light of `first`."""
    light = {name: getattr(first, name) for name in ("light_yaw", "light_pitch", "light_strength")}
    return replace(scene, **light)


def group_prompt(scenes: list[Scene]) -> str:
    """Return the text prompt of two or three people in the setting of the first scene."""
    words = {2: "two", 3: "three"}[len(scenes)]
    clothes = " and ".join(scene.clothes for scene in scenes)
    return f"a photo of {words} people, wearing {clothes}, {scenes[0].setting}"


def _canvas(width: int, height: int) -> tuple[Canvas, int]:
    if min(width, height) < 16:
        raise ValueError(f"picture size {min(width, height)}, expected at least 16 pixels")
    longest = max(width, height)
    factor = 4 if longest <= 96 else 3 if longest <= 256 else 2
    return Canvas(width * factor, height * factor), factor


def _finish(canvas: Canvas, width: int, height: int) -> Image:
    return cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _truth(head: Head, scene: Scene, factor: int, prompt: str) -> Truth:
    landmarks = landmarks68(head) / factor
    return Truth(
        landmarks=landmarks,
        keypoints=keypoints5(landmarks),
        box=face_box(head, landmarks * factor) / factor,
        expression=scene.expression,
        pose=scene.pose,
        yaw=scene.yaw,
        pitch=scene.pitch,
        roll=scene.roll,
        prompt=prompt,
        face_prompt=scene.face_prompt,
    )


def _draw_people(canvas: Canvas, people: list[tuple[Head, Scene]]) -> None:
    """Draw heads and their bodies, all bodies first."""
    hairs = [
        Hair(head, light_direction(scene.light_yaw, scene.light_pitch), scene.light_strength) for head, scene in people
    ]
    for (head, scene), hair in zip(people, hairs, strict=True):
        hair.behind_body(canvas)
        draw_body(canvas, head, scene, skin_colour(head.person))
    for (head, scene), hair in zip(people, hairs, strict=True):
        _draw_head(canvas, head, scene, hair)


def _draw_head(canvas: Canvas, head: Head, scene: Scene, hair: Hair) -> None:
    person, camera = head.person, head.camera
    skin = skin_colour(person)
    hair.behind_head(canvas)
    # The ear that faces the camera is drawn over the head and short hair, the other one behind the head.
    near = [side for side in (-1, 1) if float(camera.rotation[2, 0]) * side > 0.12]
    for side in sorted({-1, 1}.difference(near)):
        ear(canvas, head, side, skin)
    mask, angles = paint_head(canvas, head, skin, hair.light, scene.light_strength)
    clips = _halves(mask, angles, scene.yaw)
    relief(canvas, head, mask, skin)
    marks(canvas, head, mask, skin)
    beard(canvas, head, mask, hair.colour, skin)
    wrinkles(canvas, head, mask, skin)
    mouth(canvas, head, mask, skin)
    nose(canvas, head, mask, skin)
    eyes(canvas, head, clips, skin, (scene.gaze_x, scene.gaze_y))
    brows(canvas, head, clips, mix(hair.colour * 0.75, skin * 0.4, 1 - person.brow_shade))
    covered = person.hair_style in COVERS_EARS
    for side in near if covered else ():
        ear(canvas, head, side, skin)
    hair.over_head(canvas, mask)
    for side in () if covered else near:
        ear(canvas, head, side, skin)
    draw_glasses(canvas, head)


def _halves(mask: Image, angles: Image, yaw: float) -> dict[int, Image]:
    """Return masks of the left (-1) and right (1) half of the face, without the part that the nose hides."""
    clips = {-1: mask, 1: mask}
    if abs(yaw) > 15:
        far = 1 if yaw > 0 else -1
        beyond = angles > 128 + 3 if far > 0 else angles < 128 - 3
        clips[far] = np.where(beyond, mask, 0).astype(np.uint8)
    return clips

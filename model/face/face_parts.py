"""Facial parts: the words of a prompt that name them, and where they are in a picture (ConsistentID, section 3.2).

Words and regions are paired by name. The regions are polygons of the 68 landmarks, which every analysed face has; these
have no ears, so "ears" is a word like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from model.face.face_geometry import face_outline

PARTS: tuple[str, ...] = ("face", "eyes", "nose", "mouth")
# Both eyes, bridge and wings of the nose, the outer edge of the lips; the face has an outline of its own.
_POINTS: dict[str, tuple[slice, ...]] = {
    "eyes": (slice(36, 42), slice(42, 48)),
    "nose": (slice(27, 36),),
    "mouth": (slice(48, 60),),
}
_WORDS = re.compile(rf"\b({'|'.join(PARTS)})\b", re.IGNORECASE)
# Corners are drawn to a 16th of a pixel.
_FRACTION_BITS = 4
# Side of the masks of a photo: several times that of any attention's positions in which they are compared.
MASK_SIDE = 128
NOT_NAMED = -1


def part_masks(landmarks: np.ndarray, side: int) -> np.ndarray:
    """Return the region of each of PARTS, (4, side, side) float32 of 0 and 1; `landmarks` (68, 2) in a unit frame.

    Raise ValueError for other landmarks.
    """
    if landmarks.shape != (68, 2):
        raise ValueError(f"landmarks of shape {landmarks.shape}: facial parts are found by the 68 of iBUG")
    points = np.asarray(landmarks, np.float64) * side
    masks = np.zeros((len(PARTS), side, side), np.uint8)
    for mask, part in zip(masks, PARTS, strict=True):
        for region in [points[which] for which in _POINTS[part]] if part in _POINTS else [face_outline(points)]:
            hull = cv2.convexHull(region.astype(np.float32))
            cv2.fillConvexPoly(mask, np.round(hull * 2**_FRACTION_BITS).astype(np.int32), 1, shift=_FRACTION_BITS)
    return masks.astype(np.float32)


def part_pictures(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return `picture` (S, S, 3) uint8 with all but one of PARTS black, once for each: (4, S, S, 3) uint8.

    `landmarks` (68, 2) in the unit frame of the picture. Raise ValueError for other landmarks.
    """
    masks = part_masks(landmarks, len(picture)).astype(np.uint8)
    return picture[None] * masks[..., None]


def described(tokenizer: Any, prompt: str) -> str:
    """Return `prompt` with the parts that it does not name as a description behind it, as published code adds one.

    Where the text would be longer than the tokenizer's limit, the description of all parts comes first.
    """
    places = part_places(tokenizer, prompt)
    missing = [part for part, place in zip(PARTS, places, strict=True) if place == NOT_NAMED]
    if not missing:
        return prompt
    text = f"{prompt} Detail: {', '.join(missing)}".lstrip()
    if len(tokenizer(text, truncation=False).input_ids) <= tokenizer.model_max_length:
        return text
    return f"Detail: {', '.join(PARTS)} Caption: {prompt}"


def part_places(tokenizer: Any, text: str) -> list[int]:
    """Return for each of PARTS the token of `text` that ends the first word naming it, NOT_NAMED where none does.

    Tokens are counted with that of the start; a word that is cut off at the tokenizer's limit names nothing.
    """
    found = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
    ends = {end: place for place, (start, end) in enumerate(found.offset_mapping) if end > start}
    named: dict[str, int] = {}
    for part, end in _named(text):
        if end in ends:
            named.setdefault(part, ends[end])
    return [named.get(part, NOT_NAMED) for part in PARTS]


def _named(text: str) -> Iterator[tuple[str, int]]:
    """Yield the parts that words of `text` name, and where each word ends."""
    for match in _WORDS.finditer(text):
        yield match[0].lower(), match.end()

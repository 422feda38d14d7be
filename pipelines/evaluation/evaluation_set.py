"""The evaluation set: which held-out people, with which reference, asked for what, from which noise.

It follows from the held-out rows, the prompts and the parameters alone. Its hash is part of every result: two
results may be compared where the hashes are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from pipelines.core.errors import UserError
from pipelines.core.sections.evaluation import Evaluate
from pipelines.evaluation.photos import PhotoRecord
from pipelines.evaluation.prompts import Prompts, TextPrompt

# Seven expressions facing the camera and four more poses with a neutral face: "neutral, front" belongs to both rows.
LOOKS: tuple[tuple[str, str], ...] = (
    *((expression, "front") for expression in EXPRESSIONS),
    *(("neutral", pose) for pose in POSES if pose != "front"),
)
# Where two people are asked for, y0 x0 y1 x1: around the heads of two who stand side by side. Halves of the picture
# would give each one's tokens the background, too, and a boost would paint it with them.
SIDE_BY_SIDE: tuple[tuple[float, float, float, float], ...] = ((0.15, 0.06, 0.8, 0.46), (0.15, 0.54, 0.8, 0.94))
# A profile hides half of what an identity is judged by, so the photos compared with are turned at most this far
# where the person has such photos. Degrees.
_TURNED_AT_MOST = 45.0
_OTHERS = 4
_FORMAT = 2


@dataclass(frozen=True)
class Person:
    """A held-out person: `reference` is all that the model sees, `others` are what its pictures are compared with.

    All are image ids; no photo has two roles (the photos that show what a cell asks for included).
    """

    identity: str
    reference: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One thing asked: `person` (index) with an expression and a pose, a prompt (index), and the noise to start from.

    `true_photo` is a real photo of the person that shows what is asked, or None where there is none. The cells of
    one person and `seed` share their noise. Cells that are not `graded` only measure the spread over seeds.
    """

    person: int
    expression: str
    pose: str
    prompt: int
    seed: int
    noise: int
    graded: bool
    true_photo: str | None

    @property
    def face_prompt(self) -> str:
        """What the face is asked to do."""
        return compose(self.expression, self.pose)

    @property
    def asks_expression(self) -> bool:
        """Whether this is one of the seven cells that tell expressions apart (all of them face the camera)."""
        return self.pose == "front"

    @property
    def asks_pose(self) -> bool:
        """Whether this is one of the five cells that tell poses apart (all of them neutral)."""
        return self.expression == "neutral"


@dataclass(frozen=True)
class Pair:
    """Two people (indices) in one picture, the first in the left half; `prompt` is an index into the pair prompts."""

    people: tuple[int, int]
    expressions: tuple[str, str]
    prompt: int
    noise: int

    @property
    def face_prompts(self) -> tuple[str, str]:
        """What each face is asked to do; both face the camera."""
        return compose(self.expressions[0], "front"), compose(self.expressions[1], "front")


@dataclass(frozen=True)
class EvaluationSet:
    """Everything that is asked, in a fixed order."""

    prompts: Prompts
    people: tuple[Person, ...]
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]

    def canonical(self) -> dict[str, Any]:
        """Return the set as plain values with the texts in place of their numbers: what the hash is computed from."""

        def said(entry: Cell | Pair, texts: tuple[TextPrompt, ...]) -> dict[str, Any]:
            return {**asdict(entry), "prompt": texts[entry.prompt].text}

        return {
            "format": _FORMAT,
            "prompts": self.prompts.version,
            "people": [asdict(person) for person in self.people],
            "cells": [{**said(cell, self.prompts.single), "face_prompt": cell.face_prompt} for cell in self.cells],
            "boxes": SIDE_BY_SIDE,
            "pairs": [{**said(pair, self.prompts.pairs), "face_prompts": pair.face_prompts} for pair in self.pairs],
        }

    @property
    def hash(self) -> str:
        """The sha256 (hex) of the canonical JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def prompt_of(self, cell: Cell) -> TextPrompt:
        """Return the text prompt of a cell."""
        return self.prompts.single[cell.prompt]

    def pair_prompt_of(self, pair: Pair) -> TextPrompt:
        """Return the text prompt of a pair."""
        return self.prompts.pairs[pair.prompt]

    def photo_ids(self) -> list[str]:
        """Return the ids of every real photo that the evaluation looks at, sorted."""
        ids = {photo for person in self.people for photo in (person.reference, *person.others)}
        return sorted(ids | {cell.true_photo for cell in self.cells if cell.true_photo})


def build_evaluation_set(records: list[PhotoRecord], params: Evaluate, prompts: Prompts) -> EvaluationSet:
    """Choose people and photos and lay out what is asked.

    At most `params.people` people take part: those with three photos or more, in an order that a new person does not
    change. Raises UserError where fewer than two are left.
    """
    photos: dict[str, list[PhotoRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: _digest(params.seed, record.image_id)):
        photos[record.identity].append(record)
    usable = [identity for identity, found in photos.items() if len(found) >= 3]
    chosen = sorted(usable, key=lambda identity: _digest(params.seed, identity))[: params.people]
    if len(chosen) < 2:
        raise UserError(
            f"evaluate: {len(chosen)} held-out people with three photos or more, expected at least 2; "
            "raise preprocess.test_share or add photos"
        )
    people: list[Person] = []
    cells: list[Cell] = []
    for index, identity in enumerate(chosen):
        person, rest = _cast(identity, photos[identity], candid=index % 2 == 1)
        people.append(person)
        cells += _cells_of(index, identity, rest, params, len(prompts.single))
    return EvaluationSet(prompts, tuple(people), tuple(cells), _pairs(len(chosen), params, len(prompts.pairs)))


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def _noise(seed: int, *parts: object) -> int:
    # 48 bits: exact in JSON readers that keep numbers as doubles.
    return int(_digest(seed, ":".join(str(part) for part in parts))[:12], 16)


def _cast(identity: str, photos: list[PhotoRecord], *, candid: bool) -> tuple[Person, list[PhotoRecord]]:
    """Choose the reference and the photos to compare with; return them and the photos that are left.

    A `candid` reference is neither neutral nor frontal: turned by half if there is such a photo, as a photo that
    somebody hands in would be; the other references are neutral and frontal.
    """

    def reference_rank(photo: PhotoRecord) -> tuple[bool, bool, bool]:
        if candid:
            return photo.pose == "front", photo.expression == "neutral", photo.turned > _TURNED_AT_MOST
        return photo.pose != "front", photo.expression != "neutral", False

    reference = min(photos, key=reference_rank)
    rest = [photo for photo in photos if photo is not reference]

    def other_rank(photo: PhotoRecord) -> tuple[bool, bool]:
        return (photo.expression, photo.pose) in LOOKS, photo.turned > _TURNED_AT_MOST

    count = max(1, min(_OTHERS, len(rest) // 3))
    others = sorted(rest, key=other_rank)[:count]
    left = [photo for photo in rest if photo not in others]
    return Person(identity, reference.image_id, tuple(photo.image_id for photo in others)), left


def _cells_of(person: int, identity: str, photos: list[PhotoRecord], params: Evaluate, prompts: int) -> list[Cell]:
    shown: dict[tuple[str, str], str] = {}
    for photo in photos:
        shown.setdefault((photo.expression, photo.pose), photo.image_id)

    def cell(expression: str, pose: str, seed: int, graded: bool) -> Cell:
        # A person's expressions are drawn with one prompt and the poses with the next, so that a row reads as one.
        turn = (2 * seed + (pose != "front")) % params.prompts
        return Cell(
            person=person,
            expression=expression,
            pose=pose,
            prompt=(person * params.prompts + turn) % prompts,
            seed=seed,
            noise=_noise(params.seed, identity, seed),
            graded=graded,
            true_photo=shown.get((expression, pose)),
        )

    graded = [cell(expression, pose, seed, True) for seed in range(params.seeds) for expression, pose in LOOKS]
    # The spread over seeds is measured on one look and one prompt.
    first = graded[0]
    spread = [
        Cell(**{**asdict(first), "seed": seed, "noise": _noise(params.seed, identity, "spread", seed), "graded": False})
        for seed in range(1, params.diversity_seeds)
    ]
    return graded + spread


def _pairs(people: int, params: Evaluate, prompts: int) -> tuple[Pair, ...]:
    """Pair neighbours first, then people further apart, so that everybody takes part about equally often."""
    partners = _partners(people)
    return tuple(
        Pair(
            people=partners[number % len(partners)],
            expressions=(EXPRESSIONS[number % 7], EXPRESSIONS[(number + 1 + number // 7) % 7]),
            prompt=number % prompts,
            noise=_noise(params.seed, "pair", number),
        )
        for number in range(params.pairs)
    )


def _partners(people: int) -> list[tuple[int, int]]:
    """Return every two of `people` people once, in rounds in which nobody is twice (the circle method).

    The first round pairs neighbours. Of an odd number one sits out in every round, another one each time.
    """
    seats = people + people % 2
    circle = [*range(0, seats, 2), *range(seats - 1, 0, -2)]
    found = []
    for _ in range(seats - 1):
        facing = [(circle[place], circle[-1 - place]) for place in range(seats // 2)]
        found += [pair for pair in facing if max(pair) < people]
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found

"""The evaluation set: held-out people, their reference photos, the pictures asked for, and the initial noise.

It is determined by the held-out rows, the prompts and the parameters. Every result contains its hash: results with
equal hashes may be compared.
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
from pipelines.core.words import counted
from pipelines.evaluation.multi_cells import MultiCell, multi_cells
from pipelines.evaluation.photos import PhotoRecord
from pipelines.evaluation.prompts import Prompts, TextPrompt

# Seven expressions facing the camera and four more poses with a neutral face; "neutral, front" counts for both.
MOTIONS: tuple[tuple[str, str], ...] = (
    *((expression, "front") for expression in EXPRESSIONS),
    *(("neutral", pose) for pose in POSES if pose != "front"),
)
# A profile hides half of the face, so the photos for comparison are turned at most this far (degrees) where the person
# has such photos.
_TURNED_AT_MOST = 45.0
_OTHERS = 4
_FORMAT = 3
# A person's photos that are left, by expression and pose.
Shown = dict[tuple[str | None, str | None], str]


@dataclass(frozen=True)
class Person:
    """A held-out person: the model sees `reference`; the pictures are compared with `others`.

    Both hold image ids. Each photo has one role: reference, other, or true photo of a cell.
    """

    identity: str
    reference: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One picture asked for: `person` (index), expression, pose, `prompt` (index) and the seed of its initial noise.

    `true_photo` is a real photo of the person with that expression and pose, or None. `graded` cells of one
    person and `seed` share their noise; the other cells only measure the spread over seeds.
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
        """The face prompt for expression and pose."""
        return compose(self.expression, self.pose)

    @property
    def asks_expression(self) -> bool:
        """Whether this is one of the seven frontal cells that measure expression accuracy."""
        return self.pose == "front"

    @property
    def asks_pose(self) -> bool:
        """Whether this is one of the five neutral cells that measure pose accuracy."""
        return self.expression == "neutral"


@dataclass(frozen=True)
class EvaluationSet:
    """People, cells and pictures of several people in a fixed order."""

    prompts: Prompts
    people: tuple[Person, ...]
    cells: tuple[Cell, ...]
    multi_cells: tuple[MultiCell, ...]

    def canonical(self) -> dict[str, Any]:
        """Return the set as JSON values, prompts as texts instead of indices; the hash is computed from this."""

        def named(entry: Cell | MultiCell, prompt: TextPrompt) -> dict[str, Any]:
            return {**asdict(entry), "prompt": prompt.text}

        return {
            "format": _FORMAT,
            "prompts": self.prompts.version,
            "people": [asdict(person) for person in self.people],
            "cells": [{**named(cell, self.prompt_of(cell)), "face_prompt": cell.face_prompt} for cell in self.cells],
            "multi_cells": [
                {**named(cell, self.multi_prompt_of(cell)), "face_prompts": cell.face_prompts, "boxes": cell.boxes}
                for cell in self.multi_cells
            ],
        }

    @property
    def hash(self) -> str:
        """The sha256 (hex) of the canonical JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def prompt_of(self, cell: Cell) -> TextPrompt:
        """Return the text prompt of a cell."""
        return self.prompts.single[cell.prompt]

    def multi_prompt_of(self, cell: MultiCell) -> TextPrompt:
        """Return the text prompt of a picture of several people."""
        return self.prompts.several[len(cell.people)][cell.prompt]

    def multi_of(self, people: int) -> list[int]:
        """Return the numbers of the pictures of `people` people."""
        return [number for number, cell in enumerate(self.multi_cells) if len(cell.people) == people]

    def photo_ids(self) -> list[str]:
        """Return the ids of all real photos that the evaluation needs, sorted."""
        ids = {photo for person in self.people for photo in (person.reference, *person.others)}
        true = {cell.true_photo for cell in self.cells} | {one for cell in self.multi_cells for one in cell.true_photos}
        return sorted(ids | {photo for photo in true if photo})


def build_evaluation_set(records: list[PhotoRecord], params: Evaluate, prompts: Prompts) -> EvaluationSet:
    """Choose people and photos, and build cells and pictures of several people.

    Takes at most `params.people` people with three photos or more, in an order that is unaffected by people added
    later. Raises UserError where there are fewer than two, or than a picture needs, or fewer than two photos to compare
    pictures with.
    """
    photos: dict[str, list[PhotoRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: _digest(params.seed, record.image_id)):
        photos[record.identity].append(record)
    usable = [identity for identity, found in photos.items() if len(found) >= 3]
    chosen = sorted(usable, key=lambda identity: _digest(params.seed, identity))[: params.people]
    if len(chosen) < 2:
        raise UserError(
            f"evaluate: {counted(len(chosen), 'held-out person', 'held-out people')} with three photos or more, "
            "expected at least 2; raise preprocess.test_share or add photos"
        )
    people: list[Person] = []
    cells: list[Cell] = []
    shown: list[Shown] = []
    for index, identity in enumerate(chosen):
        person, rest = _choose_photos(identity, photos[identity], candid=index % 2 == 1)
        people.append(person)
        shown.append({})
        for photo in rest:
            shown[-1].setdefault((photo.expression, photo.pose), photo.image_id)
        cells += _cells_of(index, identity, shown[-1], params, len(prompts.single))
    true = {cell.true_photo for cell in cells if cell.graded and cell.true_photo}
    if len(true) < 2:
        raise UserError(
            f"evaluate: {counted(len(true), 'photo')} of the {len(chosen)} held-out people with one of the "
            f"{len(MOTIONS)} asked expressions and poses, expected at least 2 to compare pictures with; raise "
            "preprocess.test_share or add photos of each person"
        )
    multi = multi_cells(
        shown,
        params.several_people.pictures,
        {count: len(texts) for count, texts in prompts.several.items()},
        lambda count, number: noise_of(params.seed, "several", count, number),
    )
    return EvaluationSet(prompts, tuple(people), tuple(cells), multi)


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def noise_of(seed: int, *parts: object) -> int:
    """Return the seed of a picture's initial noise, which is the same for the same parts."""
    # 48 bits: exact in JSON readers that store numbers as doubles.
    return int(_digest(seed, ":".join(str(part) for part in parts))[:12], 16)


def _choose_photos(identity: str, photos: list[PhotoRecord], *, candid: bool) -> tuple[Person, list[PhotoRecord]]:
    """Choose the reference and the photos to compare with; return them and the remaining photos.

    A `candid` reference is neither neutral nor frontal (half turned rather than a profile), as a user's photo may be;
    the other references are neutral and frontal. A condition that no photo meets is ignored.
    """

    def reference_rank(photo: PhotoRecord) -> tuple[bool, bool, bool]:
        if candid:
            # What is open may be neutral and frontal.
            calm, frontal = photo.expression in {"neutral", None}, photo.pose in {"front", None}
            return frontal, calm, photo.turned > _TURNED_AT_MOST
        return photo.pose != "front", photo.expression != "neutral", False

    reference = min(photos, key=reference_rank)
    rest = [photo for photo in photos if photo is not reference]

    def other_rank(photo: PhotoRecord) -> tuple[bool, bool]:
        return (photo.expression, photo.pose) in MOTIONS, photo.turned > _TURNED_AT_MOST

    count = max(1, min(_OTHERS, len(rest) // 3))
    others = sorted(rest, key=other_rank)[:count]
    left = [photo for photo in rest if photo not in others]
    return Person(identity, reference.image_id, tuple(photo.image_id for photo in others)), left


def _cells_of(person: int, identity: str, shown: Shown, params: Evaluate, prompts: int) -> list[Cell]:
    def cell(expression: str, pose: str, seed: int, graded: bool) -> Cell:
        # A person's expressions share a prompt and the poses the next one, so that a row of pictures can be compared.
        turn = (2 * seed + (pose != "front")) % params.prompts
        return Cell(
            person=person,
            expression=expression,
            pose=pose,
            prompt=(person * params.prompts + turn) % prompts,
            seed=seed,
            noise=noise_of(params.seed, identity, seed),
            graded=graded,
            true_photo=shown.get((expression, pose)),
        )

    graded = [cell(expression, pose, seed, True) for seed in range(params.seeds) for expression, pose in MOTIONS]
    # The spread over seeds is measured with one expression, pose and prompt.
    first = graded[0]
    spread = [
        Cell(
            **{**asdict(first), "seed": seed, "noise": noise_of(params.seed, identity, "spread", seed), "graded": False}
        )
        for seed in range(1, params.diversity_seeds)
    ]
    return graded + spread

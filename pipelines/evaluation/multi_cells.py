"""Pictures of several people that the evaluation asks for: who stands where, and what each is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from pipelines.core.errors import UserError
from pipelines.core.words import counted

Box = tuple[float, float, float, float]
# Heads fill this part of a picture's height. In boxes that are whole slices of it, a person's tokens would also act on
# the background, and a boost would draw the person's features there.
_TOP, _BOTTOM = 0.15, 0.8
# Free at both borders and between neighbours, in slices of the picture, one slice for each person.
_BORDER, _BETWEEN = 0.12, 0.16


@dataclass(frozen=True)
class MultiCell:
    """One picture of several `people` (indices), from its left to its right.

    Each has an expression and a pose that nobody else in the picture is asked for; `true_photos` has for each a real
    photo that shows both, or None. `prompt` is an index into the prompts for so many people.
    """

    people: tuple[int, ...]
    expressions: tuple[str, ...]
    poses: tuple[str, ...]
    prompt: int
    noise: int
    true_photos: tuple[str | None, ...]

    @property
    def face_prompts(self) -> tuple[str, ...]:
        """The face prompt of each person."""
        return tuple(compose(*motion) for motion in zip(self.expressions, self.poses, strict=True))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The box of each person."""
        return side_by_side(len(self.people))

    @property
    def photos(self) -> tuple[str, ...] | None:
        """The true photo of everybody, None where somebody has none."""
        found = tuple(photo for photo in self.true_photos if photo)
        return found if len(found) == len(self.people) else None

    @property
    def motions(self) -> np.ndarray:
        """The asked expression and pose of each person, (P, 2) indices into face_prompts."""
        return np.array(
            [
                (EXPRESSIONS.index(one), POSES.index(other))
                for one, other in zip(self.expressions, self.poses, strict=True)
            ]
        )


def side_by_side(people: int) -> tuple[Box, ...]:
    """Return a box (y0, x0, y1, x1) around the head of each of `people` people beside each other."""
    width = (people - 2 * _BORDER - _BETWEEN * (people - 1)) / people**2
    step = width + _BETWEEN / people
    lefts = (_BORDER / people + place * step for place in range(people))
    return tuple((_TOP, round(left, 6), _BOTTOM, round(left + width, 6)) for left in lefts)


def multi_cells(
    shown: Sequence[Mapping[tuple[str | None, str | None], str]],
    pictures: Mapping[int, int],
    prompts: Mapping[int, int],
    noise: Callable[[int, int], int],
) -> tuple[MultiCell, ...]:
    """Return the pictures of several people.

    `shown` has for each held-out person the photos that are left, by expression and pose; `pictures` and `prompts` how
    many there are by the number of people in a picture; `noise` gives the noise of a picture of so many people, by its
    number. Raises UserError where a picture needs more people than there are.
    """
    cells: list[MultiCell] = []
    for count, wanted in pictures.items():
        if wanted and count > len(shown):
            raise UserError(
                f"evaluate: {counted(wanted, 'picture')} of {count} people, and "
                f"{counted(len(shown), 'held-out person', 'held-out people')}; ask for none "
                "(evaluate.several_people), hold out more people (preprocess.test_share), or raise evaluate.people"
            )
        groups = _groups(len(shown), count)
        for number in range(wanted):
            people = groups[number % len(groups)]
            expressions, poses = _motions(number, [shown[person] for person in people])
            cells.append(
                MultiCell(
                    people=people,
                    expressions=expressions,
                    poses=poses,
                    prompt=number % prompts[count],
                    noise=noise(count, number),
                    true_photos=tuple(
                        shown[person].get(motion)
                        for person, motion in zip(people, zip(expressions, poses, strict=True), strict=True)
                    ),
                )
            )
    return tuple(cells)


def _groups(people: int, size: int) -> list[tuple[int, ...]]:
    """Return groups of `size` of `people` people, in rounds that contain each person at most once (circle method).

    The first round groups neighbours; groups of two come once each. What is left over differs from round to round.
    """
    seats = people + people % 2
    circle = [*range(0, seats, 2), *range(seats - 1, 0, -2)]
    groups: list[tuple[int, ...]] = []
    for _ in range(seats - 1):
        facing = [(circle[place], circle[-1 - place]) for place in range(seats // 2)]
        if size == 2:
            groups += [pair for pair in facing if max(pair) < people]
        else:
            row = [person for pair in facing for person in pair if person < people]
            groups += [tuple(row[start : start + size]) for start in range(0, len(row) - size + 1, size)]
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return groups


def _motions(
    number: int, shown: Sequence[Mapping[tuple[str | None, str | None], str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return an expression and a pose for each person of picture `number`, all different.

    Expressions rotate, so that all are asked equally often. So do poses, except where others have more true photos.
    """
    count = len(shown)

    def rotated(names: tuple[str, ...]) -> tuple[str, ...]:
        step = 1 + number // len(names) % (len(names) - 1)
        return tuple(names[(number + place * step) % len(names)] for place in range(len(names)))

    expressions, poses = rotated(EXPRESSIONS)[:count], rotated(POSES)

    def photos(chosen: tuple[str, ...]) -> int:
        return sum(motion in mine for motion, mine in zip(zip(expressions, chosen, strict=True), shown, strict=True))

    # The first of the best is taken, and the first of all is what rotation gives.
    return expressions, max(permutations(poses, count), key=photos)

"""Prompts that name several people by their place, from the picture's left to its right.

"a photo of two people, blue background: on the left a woman wearing a red shirt; on the right a man wearing a white
sweater". A face prompt may follow each person: "…: on the left a woman wearing a red shirt, happy, facing the camera;
on the right …". A prompt of one person names no place: "a photo of a woman wearing a red shirt, blue background".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

PLACES: dict[int, tuple[str, ...]] = {
    2: ("on the left", "on the right"),
    3: ("on the left", "in the middle", "on the right"),
    4: ("on the left", "second from the left", "second from the right", "on the right"),
}
"""The places of two, three and four people."""
MOST = max(PLACES)
_COUNTS = {2: "two", 3: "three", 4: "four"}
_OPEN, _NEXT = ": ", "; "
_WEARING = ", wearing "


def describe_people(people: Sequence[str], setting: str) -> str:
    """Return the prompt of 2 to 4 `people` ("a woman wearing a red shirt") in a `setting` ("blue background")."""
    if len(people) not in PLACES:
        raise ValueError(f"{len(people)} people to name by place, expected 2 to {MOST}")
    named = (f"{place} {person}" for place, person in zip(PLACES[len(people)], people, strict=True))
    return f"a photo of {_COUNTS[len(people)]} people, {setting}{_OPEN}{_NEXT.join(named)}"


def with_face_prompts(prompt: str, face_prompts: Sequence[str]) -> str:
    """Return `prompt` with a face prompt behind each person; an empty one adds nothing.

    Raises ValueError where the prompt names another number of people than there are face prompts.
    """
    scene, people = _parts(prompt)
    if len(face_prompts) != max(len(people), 1):
        raise ValueError(
            f"face prompts: {len(face_prompts)}, people in the prompt {prompt!r}: {max(len(people), 1)}; "
            "give one for each person, from the picture's left to its right"
        )
    if not people:
        return _joined(prompt, face_prompts[0])
    return scene + _OPEN + _NEXT.join(_joined(*pair) for pair in zip(people, face_prompts, strict=True))


def one_by_one(prompt: str, count: int) -> tuple[str, ...]:
    """Return a prompt of one person for each of the `count` people of `prompt`, from left to right.

    The people may be named by place, or by what they wear ("a photo of two people, wearing a red shirt and a white
    sweater, blue background"); what else the prompt says belongs to everybody. Raises ValueError where `prompt` is not
    of so many people, or names another number of them.
    """
    if count not in PLACES:
        raise ValueError(f"{count} people to name one by one, expected 2 to {MOST}")
    opening = f"a photo of {_COUNTS[count]} people"
    scene, named = _parts(prompt)
    if not scene.startswith(opening) or len(named) not in {0, count}:
        raise ValueError(
            f"prompt {prompt!r}: expected {opening!r} in its beginning, and then {count} people named by place "
            f"({', '.join(PLACES[count])}), by what they wear, or not at all"
        )
    setting, people = scene.removeprefix(opening), people_of(prompt)
    if not people and setting.startswith(_WEARING):
        parts = re.split(r", | and ", setting.removeprefix(_WEARING))
        clothes = [*itertools.takewhile(lambda part: part.startswith(("a ", "an ")), parts)]
        if len(clothes) != count:
            raise ValueError(
                f"prompt {prompt!r}: {len(clothes)} piece{'s' * (len(clothes) != 1)} of clothing for {count} people; "
                "expected one each"
            )
        setting = "".join(f", {part}" for part in parts[count:])
        people = tuple(f"a person wearing {one}" for one in clothes)
    return tuple(f"a photo of {person}{setting}" for person in people or ["a person"] * count)


def without_people(prompt: str) -> str:
    """Return `prompt` without the people that it names by place: the number of people and the setting."""
    return _parts(prompt)[0]


def people_of(prompt: str) -> tuple[str, ...]:
    """Return what `prompt` states of each person it names by place, without the place; empty if it names none."""
    people = _parts(prompt)[1]
    return tuple(text[len(place) + 1 :] for text, place in zip(people, PLACES.get(len(people), ()), strict=True))


def _parts(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Return the scene, and the text of each person with its place; none where the places are not those of PLACES."""
    scene, found, rest = prompt.partition(_OPEN)
    people = tuple(rest.split(_NEXT)) if found else ()
    places = PLACES.get(len(people), ())
    if not places or not all(text.startswith(f"{place} ") for text, place in zip(people, places, strict=True)):
        return prompt, ()
    return scene, people


def _joined(text: str, more: str) -> str:
    return f"{text}, {more}" if more else text

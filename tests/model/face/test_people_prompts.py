"""Prompts name several people by place; face prompts are put behind each and scenes are read back."""

from __future__ import annotations

import pytest

from model.face.people_prompts import PLACES, describe_people, people_of, with_face_prompts, without_people

PEOPLE = ("a woman wearing a red shirt", "a man wearing a white sweater", "a person wearing an orange hoodie", "a man")


@pytest.mark.parametrize("count", sorted(PLACES))
def test_people_and_setting_are_read_back(count: int) -> None:
    prompt = describe_people(PEOPLE[:count], "on a beach")
    assert people_of(prompt) == PEOPLE[:count]
    assert without_people(prompt).endswith("people, on a beach")
    # The places are different, and from the left to the right.
    assert len(set(PLACES[count])) == count
    assert PLACES[count][0] == "on the left"
    assert PLACES[count][-1] == "on the right"


def test_face_prompts_are_put_behind_each_person() -> None:
    prompt = describe_people(PEOPLE[:2], "blue background")
    assert prompt == (
        "a photo of two people, blue background: on the left a woman wearing a red shirt; "
        "on the right a man wearing a white sweater"
    )
    assert with_face_prompts(prompt, ["happy, facing the camera", ""]) == (
        "a photo of two people, blue background: on the left a woman wearing a red shirt, happy, facing the camera; "
        "on the right a man wearing a white sweater"
    )
    assert with_face_prompts(prompt, ["", ""]) == prompt


@pytest.mark.parametrize("prompt", ["a photo of a woman wearing a red shirt, blue background", "news: a man; a woman"])
def test_a_prompt_without_places_is_of_one_person(prompt: str) -> None:
    assert people_of(prompt) == ()
    assert without_people(prompt) == prompt
    assert with_face_prompts(prompt, ["sad"]) == f"{prompt}, sad"


def test_another_number_of_face_prompts_or_of_people_is_refused() -> None:
    prompt = describe_people(PEOPLE[:3], "blue background")
    with pytest.raises(ValueError, match=r"face prompts: 2, people in the prompt .*: 3; give one for each person"):
        with_face_prompts(prompt, ["sad", "happy"])
    with pytest.raises(ValueError, match="5 people to name by place, expected 2 to 4"):
        describe_people([*PEOPLE, "a woman"], "blue background")

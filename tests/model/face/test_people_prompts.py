"""Prompts name several people by place; face prompts are put behind each and scenes are read back."""

from __future__ import annotations

import pytest

from model.face.people_prompts import PLACES, describe_people, one_by_one, people_of, with_face_prompts, without_people

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


@pytest.mark.parametrize(
    ("prompt", "people"),
    [
        (
            "a photo of two people, blue background: on the left a woman wearing a red shirt; on the right a man",
            ("a photo of a woman wearing a red shirt, blue background", "a photo of a man, blue background"),
        ),
        (
            "a photo of two people, wearing a red t-shirt and an orange hoodie, on a beach",
            (
                "a photo of a person wearing a red t-shirt, on a beach",
                "a photo of a person wearing an orange hoodie, on a beach",
            ),
        ),
        (
            "a photo of three people, wearing a red shirt, a blue shirt and a sweater",
            tuple(f"a photo of a person wearing a {one}" for one in ("red shirt", "blue shirt", "sweater")),
        ),
        ("a photo of two people, green background", ("a photo of a person, green background",) * 2),
        ("a photo of four people", ("a photo of a person",) * 4),
    ],
)
def test_a_prompt_of_several_people_becomes_one_of_each(prompt: str, people: tuple[str, ...]) -> None:
    assert one_by_one(prompt, len(people)) == people


@pytest.mark.parametrize(
    ("prompt", "count", "message"),
    [
        ("two friends on a beach", 2, "expected 'a photo of two people' in its beginning"),
        ("a photo of three people, blue background", 2, "expected 'a photo of two people'"),
        ("a photo of two people: on the left a man; in the middle a man; on the right a man", 2, "then 2 people named"),
        ("a photo of two people, wearing a red shirt, blue background", 2, "1 piece of clothing for 2 people"),
        ("a photo of five people", 5, "5 people to name one by one, expected 2 to 4"),
    ],
)
def test_a_prompt_of_nobody_or_of_others_is_refused(prompt: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_by_one(prompt, count)

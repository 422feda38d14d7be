from __future__ import annotations

from pathlib import Path

import pytest

from model.face.face_prompts import parse
from model.face.people_prompts import people_of, without_people
from pipelines.core.errors import UserError
from pipelines.evaluation.prompts import load_prompts


def test_the_prompts_say_nothing_about_the_face_and_name_what_can_be_judged() -> None:
    prompts = load_prompts()
    assert len({prompt.text for prompt in prompts.single}) == len(prompts.single)
    several = [prompt for texts in prompts.several.values() for prompt in texts]
    for prompt in (*prompts.single, *several):
        # Of the places of people, only those of PLACES are none of a pose.
        for text in (without_people(prompt.text), *people_of(prompt.text)):
            motion = parse(text)
            assert (motion.expression, motion.pose) == (None, None)
    assert all(len(people_of(prompt.text)) == count for count in (3, 4) for prompt in prompts.several[count])
    assert all({slot for slot, _ in prompt.asked} == {"shirt", "background"} for prompt in prompts.single)


def test_alternatives_differ_in_one_thing_and_hold_the_prompt_itself() -> None:
    prompt = load_prompts().single[0]
    texts, asked = prompt.alternatives("shirt")
    assert texts[asked] == prompt.text == "a photo of a person wearing a red t-shirt, blue background"
    assert len(set(texts)) == 11
    assert all(text.endswith("t-shirt, blue background") for text in texts)


def test_plain_prompts_ask_for_nothing() -> None:
    prompts = load_prompts("plain")
    assert prompts.single[0].text == "a photo of a person"
    assert all(not prompt.asked for prompt in (*prompts.single, *prompts.several[2], *prompts.several[4]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{text: 'a {shirt} shirt', shirt: mauve}", "mauve"),
        ("{text: 'a person', shirt: red}", "asks for"),
        ("{text: 'a smiling person in {shirt}', shirt: red}", "happy"),
    ],
)
def test_a_prompt_that_cannot_be_judged_is_refused(tmp_path: Path, entry: str, message: str) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(f"version: 1\nslots: {{shirt: {{red: a red}}}}\nsingle: [{entry}]\nseveral: {{}}\n")
    with pytest.raises(UserError, match=message):
        load_prompts(file=file)

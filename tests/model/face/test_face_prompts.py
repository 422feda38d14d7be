"""The words of a face prompt are used, named as unused, or refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.face.face_prompts import EXPRESSIONS, POSES, compose, parse, parse_request, request_as_published


@pytest.mark.parametrize(("expression", "pose"), list(itertools.product((None, *EXPRESSIONS), (None, *POSES))))
def test_canonical_prompts_use_every_word(expression: str | None, pose: str | None) -> None:
    motion = parse(compose(expression, pose))
    assert (motion.expression, motion.pose, motion.unused, motion.fault) == (expression, pose, (), "")


@pytest.mark.parametrize(("expression", "pose"), list(itertools.product(EXPRESSIONS, POSES)))
def test_published_requests_use_every_word(expression: str, pose: str) -> None:
    motion = parse_request(request_as_published(expression, pose))
    assert (motion.expression, motion.pose, motion.note) == (expression, pose, "")


@pytest.mark.parametrize(
    ("text", "expression", "pose", "unused"),
    [
        ("Happy, smiling", "happy", None, ()),
        ("smiling and turned a bit to the right", "happy", "half_right", ()),
        ("looking to the left, angry", "angry", "left", ()),
        ("half_left", None, "half_left", ()),
        ("three-quarter view to the left", None, "half_left", ()),
        ("left profile", None, "left", ()),
        ("with a smile, looking straight ahead", "happy", "front", ()),
        ("looks directly at the camera", None, "front", ()),
        ("sad, looking up", "sad", None, ("looking up",)),
        ("looking up to the left", None, "left", ("up",)),
        ("facing down, surprised", "surprised", None, ("facing down",)),
        ("happy, head tilted to the left", "happy", None, ("head tilted to the left",)),
        ("slightly sad, turned to the left", "sad", "left", ("slightly",)),
        ("very happy with eyes closed", "happy", None, ("very", "eyes closed")),
        ("happy, ohne Brille", "happy", None, ("ohne brille",)),
        ("sad, 悲しい", "sad", None, ("悲しい",)),
        ("angry 😀", "angry", None, ("😀",)),
        ("happy, without glasses", "happy", None, ("without glasses",)),
        ("neutral, side view", "neutral", None, ("side view",)),
    ],
)
def test_words_are_used_or_named(text: str, expression: str | None, pose: str | None, unused: tuple[str, ...]) -> None:
    motion = parse_request(text)
    assert (motion.expression, motion.pose, motion.unused) == (expression, pose, unused)
    assert all(repr(words) in motion.note for words in unused)
    assert bool(motion.note) == bool(unused)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("happy and sad", "'happy' and 'sad' are 2 expressions"),
        ("smiling, crying or furious", "'smiling' and 'crying' and 'furious' are 3 expressions"),
        ("turned to the left, facing the camera", "'turned to the left' and 'facing the camera' are 2 head poses"),
        ("left or right", "'turned to the left' and 'turned to the right' are 2 head poses"),
        ("not happy", "'not happy' says what must not be seen"),
        ("sad, no smile", "'no smile' says what must not be seen"),
        ("he isn't angry", "says what must not be seen"),
        ("neither happy nor sad", "says what must not be seen"),
        ("not facing the camera", "says what must not be seen"),
        ("glücklich, nach links", "names no expression (neutral"),
        ("looking up", "names no expression (neutral"),
        ("unhappily turned", "names no expression (neutral"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^face prompt ['\"]") as error:
        parse_request(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=60))
@settings(derandomize=True)
def test_any_text_is_read(text: str) -> None:
    motion = parse(f"happy, {text}")
    assert motion.expression is not None
    assert all(words.strip() for words in motion.unused)

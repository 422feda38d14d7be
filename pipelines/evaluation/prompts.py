"""The fixed text prompts of the evaluation."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.face.face_prompts import parse
from model.face.people_prompts import people_of, without_people
from pipelines.core.documents import read_yaml
from pipelines.core.errors import UserError

PROMPTS_FILE = Path(__file__).with_name("prompts.yaml")


@dataclass(frozen=True)
class TextPrompt:
    """One prompt.

    `template` has slots in braces; `asked` has (slot, value) for each; `words` has for each slot the pairs (value,
    words) that a judge chooses from.
    """

    template: str
    asked: tuple[tuple[str, str], ...]
    words: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def text(self) -> str:
        """The prompt with its slots filled in."""
        return self._filled({})

    def alternatives(self, slot: str) -> tuple[list[str], int]:
        """Return the prompt with each value of `slot`, other slots unchanged, and the index of the asked value."""
        choices = dict(self.words)[slot]
        texts = [self._filled({slot: value}) for value, _ in choices]
        return texts, [value for value, _ in choices].index(dict(self.asked)[slot])

    def _filled(self, changes: dict[str, str]) -> str:
        values = {**dict(self.asked), **changes}
        return self.template.format(**{slot: dict(choices)[values[slot]] for slot, choices in self.words})


@dataclass(frozen=True)
class Prompts:
    """The versioned lists of prompts: for one person, and for several by their number."""

    version: int
    single: tuple[TextPrompt, ...]
    several: Mapping[int, tuple[TextPrompt, ...]]


def load_prompts(scenes: str = "clothes", file: Path = PROMPTS_FILE) -> Prompts:
    """Read the prompts with these `scenes` (evaluate.scenes).

    Raises UserError for an unknown slot or value, or a prompt that names an expression or pose.
    """
    tree = read_yaml(file)
    lists = tree if scenes == "clothes" else tree[scenes]
    slots = {slot: tuple(values.items()) for slot, values in tree["slots"].items()}

    def read(entry: dict[str, str]) -> TextPrompt:
        asked = {key: value for key, value in entry.items() if key != "text"}
        named = {field for _, field, _, _ in string.Formatter().parse(entry["text"]) if field}
        for slot, value in asked.items():
            if slot not in slots or value not in dict(slots[slot]):
                raise UserError(f"{file}: {entry['text']!r}: no slot {slot} with a value {value}; add it to `slots`")
        if named != set(asked):
            raise UserError(f"{file}: {entry['text']!r}: names {sorted(named)} but asks for {sorted(asked)}")
        prompt = TextPrompt(entry["text"], tuple(asked.items()), tuple((slot, slots[slot]) for slot in asked))
        # The places of several people are no poses.
        for part in (without_people(prompt.text), *people_of(prompt.text)):
            motion = parse(part)
            if motion.expression or motion.pose:
                raise UserError(
                    f"{file}: {prompt.text!r} names an expression or pose ({motion.expression or motion.pose}); "
                    "only the face prompt may"
                )
        return prompt

    several = {count: tuple(read(entry) for entry in entries) for count, entries in lists["several"].items()}
    return Prompts(int(tree["version"]), tuple(read(entry) for entry in lists["single"]), several)

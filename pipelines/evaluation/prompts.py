"""The fixed text prompts of the evaluation: what they name and with which words."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import yaml

from model.face.face_prompts import parse
from pipelines.core.errors import UserError

PROMPTS_FILE = Path(__file__).with_name("prompts.yaml")


@dataclass(frozen=True)
class TextPrompt:
    """One prompt.

    `template` holds slots in braces, `asked` the value of each (slot, value), `words` for each slot the pairs of
    value and words that a judge chooses from.
    """

    template: str
    asked: tuple[tuple[str, str], ...]
    words: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def text(self) -> str:
        """The prompt as the model gets it."""
        return self._filled({})

    def alternatives(self, slot: str) -> tuple[list[str], int]:
        """Return the prompt with every value of `slot` in turn, all else as asked, and the index of the asked one."""
        choices = dict(self.words)[slot]
        texts = [self._filled({slot: value}) for value, _ in choices]
        return texts, [value for value, _ in choices].index(dict(self.asked)[slot])

    def _filled(self, changes: dict[str, str]) -> str:
        values = {**dict(self.asked), **changes}
        return self.template.format(**{slot: dict(choices)[values[slot]] for slot, choices in self.words})


@dataclass(frozen=True)
class Prompts:
    """The versioned lists: prompts for one person and for two."""

    version: int
    single: tuple[TextPrompt, ...]
    pairs: tuple[TextPrompt, ...]


def load_prompts(file: Path = PROMPTS_FILE) -> Prompts:
    """Read the prompts; raise UserError where one names an unknown slot or value, an expression or a pose."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    slots = {slot: tuple(values.items()) for slot, values in tree["slots"].items()}

    def read(entry: dict[str, str]) -> TextPrompt:
        asked = {key: value for key, value in entry.items() if key != "text"}
        named = {field for _, field, _, _ in string.Formatter().parse(entry["text"]) if field}
        for slot, value in asked.items():
            if slot not in slots or value not in dict(slots[slot]):
                raise UserError(f"{file}: {entry['text']!r}: {slot}: {value} is in no slot; add it to `slots`")
        if named != set(asked):
            raise UserError(f"{file}: {entry['text']!r}: names {sorted(named)} but asks for {sorted(asked)}")
        prompt = TextPrompt(entry["text"], tuple(asked.items()), tuple((slot, slots[slot]) for slot in asked))
        said = parse(prompt.text)
        if said.expression or said.pose:
            raise UserError(
                f"{file}: {prompt.text!r} says what the face does ({said.expression or said.pose}); "
                "only the face prompt may"
            )
        return prompt

    single, pairs = (tuple(read(entry) for entry in tree[key]) for key in ("single", "pairs"))
    return Prompts(int(tree["version"]), single, pairs)

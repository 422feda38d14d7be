"""The form's components by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Person:
    """What is asked about one person."""

    photo: Any
    expression: Any
    pose: Any


@dataclass(frozen=True)
class Form:
    """Everything that is asked, and the button."""

    people: tuple[Person, ...]
    prompt: Any
    boxes: Any
    seed: Any
    new_seed: Any
    negative: Any
    steps: Any
    guidance: Any
    scale: Any
    draw: Any

    def faces(self) -> list[Any]:
        """Return photo, expression and pose of everybody, in order."""
        return [part for person in self.people for part in (person.photo, person.expression, person.pose)]

    def inputs(self) -> list[Any]:
        """Return every component that has a value."""
        others = [self.prompt, self.boxes, self.seed, self.new_seed, self.negative, self.steps, self.guidance]
        return [*self.faces(), *others, self.scale]

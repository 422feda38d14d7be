"""Examples with procedural people, so that the page can be tried without a photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SIDE = 256
# People of this namespace are in no dataset, and the small networks were not trained on them.
_NAMESPACE = "page"


@dataclass(frozen=True)
class Example:
    """A filled form: photos, a prompt, and per person an expression and a pose."""

    name: str
    photos: tuple[Path, ...]
    prompt: str
    expressions: tuple[str, ...]
    poses: tuple[str, ...]


def draw_examples(folder: Path) -> list[Example]:
    """Draw two people into `folder` and return a form with both of them and one with one."""
    photos = tuple(_portrait(folder / f"drawn-person-{index + 1}.png", index) for index in range(2))
    one = Example(
        "One drawn person",
        photos[:1],
        "a photo of a person wearing a red t-shirt, blue background",
        ("happy",),
        ("half_left",),
    )
    both = Example(
        "Two drawn people",
        photos,
        "a photo of two people, wearing a red t-shirt and a white hoodie, green background",
        ("happy", "surprised"),
        ("half_right", "half_left"),
    )
    return [both, one]


def _portrait(file: Path, index: int) -> Path:
    from PIL import Image

    from pipelines.data.synthetic.sheet import portrait

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(portrait(_NAMESPACE, index, _SIDE)).save(file)
    return file

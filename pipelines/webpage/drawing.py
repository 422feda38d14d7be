"""What happens behind the page's button: one request drawn at a time, into files of the page's own folder."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.serving.generation import Generator
    from pipelines.serving.request import DrawRequest

# Pictures are far smaller than a screen: heat over one is smooth only when it is drawn larger.
_HEAT_SIDE = 512


@dataclass(frozen=True)
class Drawing:
    """A picture and its heat map as PNG files; how long the drawing took, waiting left out."""

    picture: Path
    heat: Path
    seconds: float


class Renderer:
    """The loaded model, what it is called, what it may be asked, and where its pictures go."""

    def __init__(self, generator: Generator, params: Params, version: str, folder: Path) -> None:
        self.generator = generator
        self.params = params
        self.version = version
        self.folder = folder
        # Page and API share one pipeline and one scheduler.
        self._drawing = threading.Lock()

    @property
    def people(self) -> int:
        """Return how many people fit into one picture of the page."""
        return min(4, self.params.serve.max_people)

    def draw(self, request: DrawRequest, on_step: Callable[[int, int], None] | None = None) -> Drawing:
        """Draw `request` and its gate's heat map; UserError where it cannot be drawn."""
        from PIL import Image, ImageOps

        from model.inference.gate_maps import heat_map

        with self._drawing:
            begun = time.monotonic()
            drawn = self.generator.draw(request, gate_map=True, on_step=on_step)
            seconds = time.monotonic() - begun
        # A name that cannot be guessed: pictures of others are on the same server.
        place = self.folder / secrets.token_urlsafe(16)
        place.mkdir()
        name = f"dynamicid-seed-{request.seed}"
        below = drawn.image
        if max(below.size) < _HEAT_SIDE:
            below = ImageOps.contain(below, (_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BICUBIC)
        heat = heat_map(below, drawn.gate_map)
        return Drawing(_save(drawn.image, place / f"{name}.png"), _save(heat, place / f"{name}-gate.png"), seconds)


def _save(picture: Any, file: Path) -> Path:
    picture.save(file, format="PNG")
    return file

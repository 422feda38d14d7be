"""Drawing for the page: one request at a time, into files of the page's folder."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.serving.generation import Generator
    from pipelines.serving.request import DrawRequest

# A smaller picture is enlarged to this side before the heat map is drawn over it, so that the map is smooth.
_HEAT_SIDE = 512


@dataclass(frozen=True)
class Drawing:
    """A picture and its heat map as PNG files, the seconds that drawing took, without waiting, and the model's note.

    `size`: width and height of the picture in pixels.
    """

    picture: Path
    heat: Path
    seconds: float
    size: tuple[int, int]
    note: str = ""


class Renderer:
    """The loaded model, its version, its limits, and the folder for its pictures."""

    def __init__(self, generator: Generator, params: Params, version: str, folder: Path) -> None:
        self.generator = generator
        self.params = params
        self.version = version
        self.folder = folder
        # Page and API share one pipeline and its scheduler.
        self._drawing = threading.Lock()
        self._ending = threading.Event()

    @property
    def people(self) -> int:
        """Return how many people one picture of the page can have."""
        known = self.generator.known
        return min(4, self.params.serve.max_people, 4 if known is None else known.most_people)

    def draw(self, request: DrawRequest, on_step: Callable[[int, int], None] | None = None) -> Drawing:
        """Draw `request` and its gate's heat map; UserError where it cannot be drawn."""
        from PIL import Image, ImageOps

        from model.inference.gate_maps import heat_map

        def step(done: int, of: int) -> None:
            if self._ending.is_set():
                raise UserError("the page is ending")
            if on_step is not None:
                on_step(done, of)

        with self._drawing:
            step(0, 1)
            begun = time.monotonic()
            drawn = self.generator.draw(request, gate_map=self.generator.has_gate, on_step=step)
            seconds = time.monotonic() - begun
            # The name cannot be guessed, since the server also has other people's pictures.
            folder = self.folder / secrets.token_urlsafe(16)
            folder.mkdir()
            base = drawn.image
            if max(base.size) < _HEAT_SIDE:
                base = ImageOps.contain(base, (_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BICUBIC)
            picture, heat = (folder / f"dynamicid-seed-{request.seed}{suffix}.png" for suffix in ("", "-gate"))
            drawn.image.save(picture)
            # Without a gate, the identity acts everywhere.
            open_everywhere = np.ones((1, 1), np.float32)
            heat_map(base, open_everywhere if drawn.gate_map is None else drawn.gate_map).save(heat)
        return Drawing(picture, heat, seconds, drawn.image.size, drawn.note)

    def close(self) -> None:
        """End the drawing that runs and refuse further ones, so that nothing is written into the folder afterwards."""
        self._ending.set()
        with self._drawing:
            pass

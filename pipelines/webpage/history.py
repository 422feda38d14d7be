"""The pictures of a visit, and the sheet of them that can be downloaded."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# Pictures of a visit that are kept.
_MOST = 24
_TEMPLATE = Path(__file__).with_name("visit.html.j2")


@dataclass(frozen=True)
class KeptPicture:
    """A drawn picture: its file, and what it was drawn from and by.

    `face_prompts`: one per person, "" for none. `size`: width and height in pixels.
    """

    file: Path
    version: str
    seed: int
    prompt: str
    face_prompts: tuple[str, ...]
    size: tuple[int, int]

    @property
    def caption(self) -> str:
        """Return the version and the seed, and for each person what was requested."""
        return " · ".join([self.version, f"seed {self.seed}", *filter(None, self.face_prompts)])


def with_pictures(kept: Sequence[KeptPicture], drawn: Sequence[KeptPicture]) -> list[KeptPicture]:
    """Return `drawn` and then `kept`, the newest first, without files that are deleted already."""
    return [one for one in (*drawn, *kept) if one.file.is_file()][:_MOST]


def write_sheet(kept: Sequence[KeptPicture], folder: Path) -> Path | None:
    """Write a self-contained page of the pictures into a new folder below `folder`; None where there are none."""
    import numpy as np
    from PIL import Image

    from pipelines.core.pages import render_page
    from pipelines.evaluation.pictures import data_uri

    if not kept:
        return None
    rows = [{"picture": one, "image": data_uri(np.asarray(Image.open(one.file).convert("RGB")))} for one in kept]
    # The name cannot be guessed, since the server also has other people's pictures.
    place = folder / secrets.token_urlsafe(16)
    place.mkdir()
    sheet = place / "dynamicid-pictures.html"
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")
    sheet.write_text(render_page(_TEMPLATE, rows=rows, written=written), encoding="utf-8")
    return sheet

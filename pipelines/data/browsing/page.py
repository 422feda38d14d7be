"""A self-contained page of rows: pictures with box and landmarks, labels, filters and a search; no file beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.pages import render_page
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, REASONS, open_rows
from pipelines.data.browsing.rows import numbers_of, rows_at
from pipelines.data.export.rows import Row
from pipelines.data.faces.decode import Undecodable, decode

TEMPLATE = Path(__file__).with_name("browse.html.j2")
_SIDE = 256
# A photo of more pixels is shown without its picture, as preprocessing rejects it.
_MAX_PIXELS = 89_000_000
_FILTERS = ("change", "status", "reason", "split", "expression", "pose", "domain", "format", "licence", "source")
# A list of more values is no filter; the search finds them.
_MOST_VALUES = 100
_VECTORS = ("bbox", "landmarks")


@dataclass(frozen=True)
class Picture:
    """A picture as a data address; the size of the stored one in pixels, and in it the box and the points of a face."""

    address: str
    width: int
    height: int
    box: tuple[float, float, float, float] | None = None
    points: str = ""


@dataclass(frozen=True)
class Card:
    """A row on a page: title, lines of (name, value), values to filter by, and the words that the search finds."""

    title: str
    picture: Picture | None
    lines: list[tuple[str, str]]
    values: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """All texts of the card in small letters."""
        return " ".join([self.title, *(value for _, value in self.lines), *self.values.values()]).casefold()


def processed_cards(files: Sequence[str], positions: Sequence[int], faces: Path) -> list[Card]:
    """Return the cards of processed rows; a rejected one has the picture of the dataset `faces`, if that is there."""
    columns = [name for name in PROCESSED_SCHEMA.names if name not in ("embedding", "keypoints")]
    rows = list(rows_at(files, positions, columns))
    without = {row["image_id"] for row in rows if row["image"] is None and row["image_id"]}
    originals = _originals(faces, without)
    return [_processed_card(row, originals) for row in rows]


def dataset_cards(files: Sequence[str], positions: Sequence[int]) -> list[Card]:
    """Return the cards of rows of a dataset, with small copies of their photos."""
    rows = rows_at(files, positions, DATASET_SCHEMA.names)
    return [_card(row, small(row.pop("image")), ("format", "width", "height", "n_bytes")) for row in rows]


def write_page(
    file: Path, title: str, cards: Sequence[Card], *, of: int, left_out: Mapping[str, int], notes: Iterable[str]
) -> None:
    """Write a page of `cards`, a sample of `of` rows; raise UserError where it cannot be written."""
    found = {name: sorted({card.values.get(name, "") for card in cards}) for name in _FILTERS}
    filters = {name: values for name, values in found.items() if 1 < len(values) <= _MOST_VALUES}
    page = render_page(
        TEMPLATE,
        title=title,
        cards=cards,
        of=of,
        left_out=dict(left_out),
        notes=list(notes),
        filters=filters,
        boxes=any(card.picture is not None and card.picture.box for card in cards),
        reasons=REASONS,
    )
    try:
        write_atomically(file, page)
    except OSError as error:
        raise UserError(f"{file}: the page cannot be written ({error.strerror}); --out names another file") from None


def small(picture: bytes | None) -> Picture | None:
    """Return a small copy of a photo of any format, or None where it cannot be decoded."""
    try:
        decoded = decode(picture or b"", max_pixels=_MAX_PIXELS, min_side=1, working_side=_SIDE)
    except Undecodable:
        return None
    return _encoded(Image.fromarray(decoded.image))


def _originals(faces: Path, image_ids: set[str]) -> dict[str, Picture | None]:
    if not image_ids or not any(faces.glob("*.parquet")):
        return {}
    files = open_rows(faces, DATASET_SCHEMA).files
    rows = rows_at(files, numbers_of(files, image_ids), ["image_id", "image"])
    return {row["image_id"]: small(row["image"]) for row in rows}


def _processed_card(row: Row, originals: Mapping[str, Picture | None]) -> Card:
    image = row.pop("image")
    vectors = {name: row.pop(name) for name in _VECTORS}
    picture = originals.get(row["image_id"])
    if image is not None:
        with Image.open(io.BytesIO(image)) as opened:
            stored = opened.convert("RGB")
        points = np.array(vectors["landmarks"] or [], float).reshape(-1, 2)
        picture = _encoded(
            stored,
            box=None if vectors["bbox"] is None else tuple(vectors["bbox"]),
            # Each point is a line of length 0 with round ends.
            points="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points if np.isfinite([x, y]).all()),
        )
    angles = {name: row[name] for name in ("yaw", "pitch", "roll") if row[name] is not None and np.isfinite(row[name])}
    row["angles"] = ", ".join(f"{name} {round(angle)}°" for name, angle in angles.items()) or None
    row["turned"] = f"{row['turned']}°" if row["turned"] else None
    return _card(row, picture, ("angles", "turned", "det_score", "n_faces", "sharpness"))


def _card(row: Row, picture: Picture | None, numbers: tuple[str, ...]) -> Card:
    texts = ("identity", "split", "status", "reason", "expression", "pose", *numbers, "prompt", "face_prompt")
    texts += ("source", "licence", "consent", "domain", "image_id")
    shown = [(name.replace("_", " "), _text(row.get(name))) for name in texts if row.get(name) is not None]
    values = {name: str(row.get(name) or "") for name in _FILTERS if name in row}
    return Card(str(row["file_name"] or "no file name"), picture, shown, values)


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _encoded(picture: Image.Image, **face: Any) -> Picture:
    """Return a picture, at most `_SIDE` pixels wide and high, as a data address."""
    buffer = io.BytesIO()
    copy = picture.copy()
    copy.thumbnail((_SIDE, _SIDE))
    copy.save(buffer, "JPEG", quality=85)
    address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(address, picture.width, picture.height, **face)

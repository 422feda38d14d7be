"""A folder per person, as VariFace-10k has it: `<identity>/<n>.png` as found, `<n>.txt` beside it."""

from __future__ import annotations

from collections import Counter

from pipelines.data.export.names import file_path, folder_name, stem_of, suffix_of, with_mark
from pipelines.data.export.rows import Row, said_of, sidecar
from pipelines.data.export.target import Target
from pipelines.data.ingest.found import PICTURE_SUFFIXES, row_name


class FoldersWriter:
    """Writes photos of a dataset, byte for byte. One that lay in its person's folder already keeps its name."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._numbers: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Write the photo of a dataset row and its text, and a line of metadata.jsonl.

        Photos of nobody named lie at the top, where ingest finds no identity for them.
        """
        place, text = self._place(row), sidecar(row)
        if self._shares_text(place) and self._target.read(f"{stem_of(place)}.txt") != text:
            place = with_mark(place, row["image_id"])
        path = self._target.write_photo(place, row["image"], row["image_id"])
        if text is not None and self._target.read(f"{stem_of(path)}.txt") is None:
            self._target.write(f"{stem_of(path)}.txt", text)
        self._target.describe(row_name(path), said_of(row))

    def _shares_text(self, place: str) -> bool:
        """Whether a photo that differs in its suffix lies there already: the text of that name is about both."""
        stem = stem_of(place)
        return any(self._target.has(stem + suffix) for suffix in sorted(PICTURE_SUFFIXES))

    def _place(self, row: Row) -> str:
        own = file_path(row["file_name"])
        if row["identity"] is None:
            return own.rpartition("/")[2]
        folder = folder_name(row["identity"])
        if own.startswith(f"{folder}/") and "." in own.rpartition("/")[2]:
            return own
        self._numbers[folder] += 1
        return f"{folder}/{self._numbers[folder]}{suffix_of(row['format'], row['file_name'])}"

"""A folder per person, as VariFace-10k has it: `<identity>/<n>.png` as found, `<n>.txt` beside it."""

from __future__ import annotations

from collections import Counter

from pipelines.data.export.names import file_path, folder_name, stem_of, suffix_of, with_mark
from pipelines.data.export.rows import Row, said_of, sidecar
from pipelines.data.export.target import Target
from pipelines.data.ingest.found import PICTURE_SUFFIXES, row_name


class FoldersWriter:
    """Writes photos of a dataset, byte for byte. One that lay in its person's folder already keeps its name."""

    def __init__(self, target: Target, shard_bytes: int) -> None:
        self._target = target
        self._numbers: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Write the photo of a dataset row and its text, and a line of metadata.jsonl.

        Photos of nobody named lie at the top, where ingest finds no identity for them.
        """
        target, path, text = self._target, self._place(row), sidecar(row)
        # A photo that differs in its suffix may lie there already: the text of that name is about both.
        taken = any((target.folder / f"{stem_of(path)}{suffix}").exists() for suffix in PICTURE_SUFFIXES)
        if taken and target.read(f"{stem_of(path)}.txt") != text:
            path = with_mark(path, row["image_id"])
        while (target.folder / path).exists():
            path = with_mark(path, row["image_id"])
        target.write(path, row["image"])
        if text is not None and target.read(f"{stem_of(path)}.txt") is None:
            target.write(f"{stem_of(path)}.txt", text)
        target.describe(row_name(path), said_of(row))

    def close(self) -> None:
        """Nothing is open."""

    def _place(self, row: Row) -> str:
        own = file_path(row["file_name"])
        if row["identity"] is None:
            return own.rpartition("/")[2]
        folder = folder_name(row["identity"])
        if own.startswith(f"{folder}/") and "." in own.rpartition("/")[2]:
            return own
        self._numbers[folder] += 1
        return f"{folder}/{self._numbers[folder]}{suffix_of(row['format'], row['file_name'])}"

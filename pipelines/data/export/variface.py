"""Write a folder per person, as in VariFace-10k: photos `<identity>/<n>.png`, texts `<n>.txt` beside them."""

from __future__ import annotations

from collections import Counter

from pipelines.data.export.names import file_path, folder_name, stem_of, suffix_of, unlike_labels, with_mark
from pipelines.data.export.rows import Row, known_labels, sidecar
from pipelines.data.export.target import Target
from pipelines.data.ingest.photo_files import PICTURE_SUFFIXES, row_name


class FoldersWriter:
    """Writes photos of a dataset, unchanged. Names that begin with the person's folder are kept, others numbered."""

    def __init__(self, target: Target, shard_bytes: int) -> None:
        self._target = target
        self._numbers: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Write the photo of a dataset row and its text, and a line of metadata.jsonl.

        Photos without an identity go to the top of the folder: ingest gives photos there no identity.
        """
        target, path, text = self._target, self._path(row), sidecar(row)
        # A text belongs to one photo, so no two photos with texts differ only in their suffix.
        taken = any((target.folder / f"{stem_of(path)}{suffix}").exists() for suffix in PICTURE_SUFFIXES)
        if taken and (text is not None or target.read(f"{stem_of(path)}.txt") is not None):
            path = with_mark(path, row["image_id"])
        while (target.folder / path).exists():
            path = with_mark(path, row["image_id"])
        target.write(path, row["image"])
        if text is not None:
            target.write(f"{stem_of(path)}.txt", text)
        target.describe(row_name(path), known_labels(row))

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _path(self, row: Row) -> str:
        own = unlike_labels(file_path(row["file_name"]), row["format"])
        if row["identity"] is None:
            return own.rpartition("/")[2]
        folder = folder_name(row["identity"])
        if own.startswith(f"{folder}/") and "." in own.rpartition("/")[2]:
            return own
        self._numbers[folder] += 1
        return f"{folder}/{self._numbers[folder]}{suffix_of(row['format'], own)}"

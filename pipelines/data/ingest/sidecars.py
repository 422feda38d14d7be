"""Read the course project's files: `1.jpg` photo, `1.png` landmarks, `1.txt` prompt, `1.pt` embedding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.data.ingest.folders import read_photos
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, row_name
from pipelines.data.ingest.walk import Entry, Photo, walk_photos

LANDMARK_PICTURE = "landmark picture of the photo of its name; preprocessing finds landmarks itself"
EMBEDDING = "embedding of the photo of its name; preprocessing measures it itself"
_CHECKED = 10_000


def has_sidecars(files: list[Entry]) -> bool:
    """Whether `files`, the files at the top of a folder, include a photo with landmark picture and embedding."""
    suffixes: dict[str, set[str]] = {}
    for item in files[:_CHECKED]:
        path = PurePosixPath(item.relative)
        suffixes.setdefault(path.stem, set()).add(path.suffix.lower())
    return any({".jpg", ".png", ".pt"} <= each for each in suffixes.values())


def read_sidecars(root: Path) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos of `root`, without identities; a `.png` beside a `.jpg` or `.jpeg` of its name is Skipped."""
    return read_photos((_skip_sidecar(root, item) for item in walk_photos(root)), 0)


def _skip_sidecar(root: Path, item: Photo | Skipped) -> Photo | Skipped:
    """Return landmark pictures and embeddings as Skipped with their own reasons, other items unchanged."""
    if isinstance(item, Photo):
        is_landmarks = item.entry.relative.lower().endswith(".png") and _is_beside_photo(item.entry.path)
        return Skipped(row_name(item.entry.relative), LANDMARK_PICTURE) if is_landmarks else item
    path = os.fspath(root / item.file_name)
    is_embedding = path.lower().endswith(".pt") and _is_beside_photo(path)
    return Skipped(item.file_name, EMBEDDING) if is_embedding else item


def _is_beside_photo(path: str) -> bool:
    stem = os.path.splitext(path)[0]  # noqa: PTH122 (names that are not UTF-8)
    return any(os.path.isfile(stem + suffix) for suffix in (".jpg", ".jpeg"))  # noqa: PTH113

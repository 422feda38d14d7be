"""The course project's files: of `1.jpg 1.png 1.txt 1.pt` the first is the photo, the others are about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.data.ingest.folders import read_sidecar
from pipelines.data.ingest.found import Found, Labels, Skipped, row_name
from pipelines.data.ingest.walk import Entry, Photo, walk_photos

LANDMARK_PICTURE = "landmark picture of the photo of its name; preprocessing finds landmarks itself"
EMBEDDING = "embedding of the photo of its name; preprocessing measures it itself"
_LOOKED_AT = 10_000


def looks_like_sidecars(files: list[Entry]) -> bool:
    """Whether the files of a folder's top are photos with landmark pictures and embeddings of the same names."""
    suffixes: dict[str, set[str]] = {}
    for item in files[:_LOOKED_AT]:
        path = PurePosixPath(item.relative)
        suffixes.setdefault(path.stem, set()).add(path.suffix.lower())
    return any({".jpg", ".png", ".pt"} <= found for found in suffixes.values())


def read_sidecars(root: Path) -> Iterator[Found | Skipped]:
    """Yield the photos of `root`; nobody has an identity. A `.png` is a photo only where no `.jpg` has its name."""
    for item in walk_photos(root):
        if isinstance(item, Skipped):
            yield _renamed(root, item)
            continue
        if item.entry.relative.lower().endswith(".png") and _beside(item.entry.path, (".jpg", ".jpeg")):
            yield Skipped(row_name(item.entry.relative), LANDMARK_PICTURE)
            continue
        yield from _photo(item)


def _photo(item: Photo) -> Iterator[Found | Skipped]:
    prompt, face_prompt, problem = read_sidecar(item.sidecar)
    if problem and item.sidecar:
        yield Skipped(row_name(item.sidecar.relative), problem)
    labels = Labels(prompt=prompt, face_prompt=face_prompt)
    yield Found(row_name(item.entry.relative), item.entry.path, None, item.entry.n_bytes, labels)


def _renamed(root: Path, item: Skipped) -> Skipped:
    """Say of an embedding what it is."""
    path = os.fspath(root / item.file_name)
    if path.lower().endswith(".pt") and _beside(path, (".jpg", ".jpeg")):
        return Skipped(item.file_name, EMBEDDING)
    return item


def _beside(path: str, suffixes: tuple[str, ...]) -> bool:
    stem = os.path.splitext(path)[0]  # noqa: PTH122 (names that are not UTF-8)
    return any(os.path.isfile(stem + suffix) for suffix in suffixes)  # noqa: PTH113

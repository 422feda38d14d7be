"""Read folders of photos: flat, or one folder per identity.

`1.jpg` may have a `1.txt`: line 1 is the prompt, line 2 the face prompt (both optional).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, one_line, row_name
from pipelines.data.ingest.walk import DENIED, Entry, Photo, walk_photos

# Longer than any caption; keeps misnamed large files out of memory.
_SIDECAR_BYTES = 64 * 1024
BAD_SIDECAR = "text beside a photo that is not UTF-8 or longer than 64 KB; the photo has no prompt"


def read_folder(root: Path, identity_depth: int) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos under `root`; the first `identity_depth` folders of a photo's path name its person.

    Depth 0 is the flat layout: no photo has an identity. A photo in fewer folders has none either; folders further down
    (one per session, for example) do not change the person.
    """
    return read_photos(walk_photos(root), identity_depth)


def read_photos(items: Iterable[Photo | Skipped], identity_depth: int) -> Iterator[FoundPhoto | Skipped]:
    """Yield photos with the labels from their text files and folders."""
    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        prompt, face_prompt, problem = _read_sidecar(item.sidecar)
        if problem and item.sidecar:
            yield Skipped(row_name(item.sidecar.relative), problem)
        name = row_name(item.entry.relative)
        folders = name.split("/")[:-1][:identity_depth]
        identity = "/".join(folders) if folders and len(folders) == identity_depth else None
        labels = Labels(identity, prompt, face_prompt)
        yield FoundPhoto(name, item.entry.path, None, item.entry.n_bytes, labels)


def _read_sidecar(file: Entry | None) -> tuple[str | None, str | None, str | None]:
    if file is None:
        return None, None, None
    try:
        with open(file.path, "rb") as stream:  # noqa: PTH123
            raw = stream.read(_SIDECAR_BYTES + 1)
    except OSError:
        return None, None, DENIED
    return parse_sidecar(raw)


def parse_sidecar(raw: bytes) -> tuple[str | None, str | None, str | None]:
    """Return prompt (line 1), face prompt (line 2) and fault of a text file's bytes, each None where there is none."""
    try:
        lines = [*raw.decode("utf-8-sig").splitlines(), "", ""]
    except UnicodeDecodeError:
        return None, None, BAD_SIDECAR
    if len(raw) > _SIDECAR_BYTES:
        return None, None, BAD_SIDECAR
    return one_line(lines[0]), one_line(lines[1]), None

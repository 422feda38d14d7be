"""Write ConsistentID's training set: `JSON_all.json`, `origin_IMG`, `resize_IMG`, `all_faceID`, `parsing_mask_IMG`.

The names are those of the published scripts (JackAILab/ConsistentID, data/FGID_*.py). `resize_IMG` holds the square
that preprocessing stored, not a distorted copy of the photo, so that face, embedding and mask agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from pipelines.core.words import counted
from pipelines.data.export.names import file_path, stem_of, with_mark
from pipelines.data.export.parsing import FaceParser
from pipelines.data.export.rows import Row, Selection, accepted_rows, dataset_rows, known_labels
from pipelines.data.export.sidecars import tensor_file
from pipelines.data.export.target import Target
from pipelines.data.ingest.known_rows import row_key
from pipelines.data.ingest.photo_files import row_name

LIST = "JSON_all.json"
ORIGIN, RESIZED, EMBEDDINGS, MASKS = "origin_IMG", "resize_IMG", "all_faceID", "parsing_mask_IMG"
_KEYS = ["image_id", "file_name", "status", "reason", "identity", "consent", "licence", "source"]


def export(faces: Path, processed: Path, wanted: Selection, target: Target, parser: FaceParser | None) -> int:
    """Write the accepted photos of `processed`, with their originals from `faces`; return how many.

    The originals are read once, in order; memory holds a key of 16 bytes per photo. Raises KeyError where an accepted
    photo is not in `faces`.
    """
    accepted = {row_key(row["file_name"], row["image_id"]) for row in accepted_rows(processed, wanted, _KEYS)}
    paths = _PhotoPaths()
    for row in dataset_rows(faces, Selection()):
        if row_key(row["file_name"], row["image_id"]) in accepted:
            target.write(f"{ORIGIN}/{paths.assign(row)}", row["image"])
    if paths.count != len(accepted):
        raise KeyError(f"{counted(len(accepted) - paths.count, 'photo')} of {processed} not in {faces}")
    with target.path(LIST).open("w", encoding="utf-8", newline="\n") as stream:
        return _write_list(stream, _entries(processed, wanted, target, parser, paths))


class _PhotoPaths:
    """The path of each photo below the folders: its name, and part of its hash where an earlier photo has the name."""

    def __init__(self) -> None:
        self._marked: set[bytes] = set()
        self._taken: set[bytes] = set()
        self.count = 0

    def assign(self, row: Row) -> str:
        """Return a path for a photo that has none yet."""
        # Photos that differ only in their suffix would have the same names in the other folders.
        stem = row_key(stem_of(_own_path(row)), "")
        if stem in self._taken:
            self._marked.add(row_key(row["file_name"], row["image_id"]))
        self._taken.add(stem)
        self.count += 1
        return self.path_of(row)

    def path_of(self, row: Row) -> str:
        """Return the path assigned to a photo."""
        marked = row_key(row["file_name"], row["image_id"]) in self._marked
        return with_mark(_own_path(row), row["image_id"]) if marked else _own_path(row)


def _own_path(row: Row) -> str:
    # A photo ingested from this layout gets the same path again.
    return file_path(row["file_name"].removeprefix(f"{ORIGIN}/"))


def _entries(
    processed: Path, wanted: Selection, target: Target, parser: FaceParser | None, paths: _PhotoPaths
) -> Iterator[dict[str, Any]]:
    for row in accepted_rows(processed, replace(wanted, left_out=Counter())):
        path = paths.path_of(row)
        stem = stem_of(path)
        picture = np.asarray(cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR))
        files = {
            "resize_IMG": (RESIZED, f"{stem}_resize.png", _png(picture)),
            "id_embed_file_resize": (
                EMBEDDINGS,
                f"{stem}_resize_faceid.bin",
                tensor_file(np.asarray(row["embedding"], np.float32)[None]),
            ),
        }
        if parser is not None:
            files["parsing_mask_IMG"] = (MASKS, f"{stem}_mask.png", _png(parser.parts(picture)))
        for folder, name, content in files.values():
            target.write(f"{folder}/{name}", content)
        labels = known_labels(row)
        prompt = {"vqa_llva": labels.pop("prompt")} if "prompt" in labels else {}
        named = {key: row_name(name) for key, (_, name, _) in files.items()}
        yield {"origin_IMG": row_name(path), **named, **prompt, **labels}


def _write_list(stream: IO[str], entries: Iterator[dict[str, Any]]) -> int:
    """Write a JSON list, one entry per line; return its length."""
    count = 0
    stream.write("[")
    for entry in entries:
        stream.write(",\n" if count else "\n")
        stream.write(json.dumps(entry, ensure_ascii=False))
        count += 1
    stream.write("\n]\n")
    return count


def _png(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1].tobytes())

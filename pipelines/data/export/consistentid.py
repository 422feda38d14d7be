"""ConsistentID's training set: `JSON_all.json` beside `origin_IMG`, `resize_IMG`, `all_faceID`, `parsing_mask_IMG`.

The names are those of the published scripts (JackAILab/ConsistentID, data/FGID_*.py). `resize_IMG` holds the square
that preprocessing stored, not one squeezed to a square, so that face, embedding and mask agree with each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from pipelines.data.export.names import file_path, stem_of, with_mark
from pipelines.data.export.parsing import FaceParser
from pipelines.data.export.rows import Row, Selection, looked_at, photos, said_of
from pipelines.data.export.sidecars import tensor_file
from pipelines.data.export.target import Target
from pipelines.data.ingest.found import row_name
from pipelines.data.ingest.known_rows import row_key

LIST = "JSON_all.json"
ORIGIN, RESIZED, EMBEDDINGS, MASKS = "origin_IMG", "resize_IMG", "all_faceID", "parsing_mask_IMG"
_KEYS = ["image_id", "file_name", "status", "reason", "identity", "consent", "licence", "source"]


def export(faces: Path, processed: Path, wanted: Selection, target: Target, parser: FaceParser | None) -> int:
    """Write the accepted photos of `processed`, with their originals from `faces`; return how many.

    Both folders are read once, in order; a key of 16 bytes a photo is held in memory. Raises KeyError where an accepted
    photo is not in `faces`.
    """
    accepted = {row_key(row["file_name"], row["image_id"]) for row in looked_at(processed, wanted, _KEYS)}
    places = _Places()
    for row in photos(faces, Selection()):
        if row_key(row["file_name"], row["image_id"]) in accepted:
            target.write(f"{ORIGIN}/{places.of(row)}", row["image"])
    if len(places) != len(accepted):
        raise KeyError(f"{len(accepted) - len(places)} photos of {processed} are not in {faces}")
    with target.path(LIST).open("w", encoding="utf-8", newline="\n") as stream:
        return _write_list(stream, _entries(processed, wanted, target, parser, places))


class _Places:
    """Where each photo lies below the folders: its own name, marked where another photo has that name."""

    def __init__(self) -> None:
        self._marked: set[bytes] = set()
        self._taken: set[bytes] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, row: Row) -> str:
        """Give a photo its place."""
        key = row_key(row["file_name"], row["image_id"])
        # All photos of one stem share their names in the other folders.
        stem = row_key(stem_of(self._own(row)), "")
        if stem in self._taken:
            self._marked.add(key)
        self._taken.add(stem)
        self._count += 1
        return self.again(row)

    def again(self, row: Row) -> str:
        """Return the place that a photo was given."""
        own = self._own(row)
        marked = row_key(row["file_name"], row["image_id"]) in self._marked
        return with_mark(own, row["image_id"]) if marked else own

    @staticmethod
    def _own(row: Row) -> str:
        # A photo that came out of this layout lies at its own name again.
        return file_path(row["file_name"].removeprefix(f"{ORIGIN}/"))


def _entries(
    processed: Path, wanted: Selection, target: Target, parser: FaceParser | None, places: _Places
) -> Iterator[dict[str, Any]]:
    for row in looked_at(processed, Selection(wanted.rights, wanted.identities)):
        place = places.again(row)
        stem = stem_of(place)
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
        known = said_of(row)
        prompt = {"vqa_llva": known.pop("prompt")} if "prompt" in known else {}
        named = {key: row_name(name) for key, (_, name, _) in files.items()}
        yield {"origin_IMG": row_name(place), **named, **prompt, **known}


def _write_list(stream: IO[str], entries: Iterator[dict[str, Any]]) -> int:
    """Write a JSON list, an entry a line; return its length."""
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

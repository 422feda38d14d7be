"""Hash the rows that a dataset already holds: 32 bytes per row, so that ten million rows fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows

_LABELS = ("identity", "prompt", "face_prompt")
_COLUMNS = ["file_name", "image_id", *_LABELS]


def _digest(values: Iterable[str | None], size: int) -> bytes:
    # The lengths distinguish ("a", "bc") from ("ab", "c"); the "-" distinguishes None from "".
    text = "".join("-" if value is None else f"{len(value)}:{value}" for value in values)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def row_key(file_name: str, image_id: str) -> bytes:
    """Return a 16-byte hash of a row's name and content."""
    return _digest((file_name, image_id), 16)


def label_key(identity: str | None, prompt: str | None, face_prompt: str | None) -> bytes:
    """Return an 8-byte hash of a row's labels."""
    return _digest((normal_name(identity), prompt, face_prompt), 8)


@dataclass(frozen=True)
class KnownRows:
    """The row keys of a dataset, sorted, with the label key of each, and the content keys in the order of rows."""

    keys: np.ndarray  # (N,) S16
    labels: np.ndarray  # (N,) S8
    contents: np.ndarray  # (N,) uint64, the first 8 bytes of each image_id

    def labels_of(self, key: bytes) -> bytes | None:
        """Return the label key of the row with this key, or None where the dataset has no such row."""
        wanted = np.frombuffer(key, dtype="V16").view("S16")
        at = int(np.searchsorted(self.keys, wanted[0]))
        if at < len(self.keys) and self.keys[at].tobytes().ljust(16, b"\0") == key:
            return bytes(self.labels[at]).ljust(8, b"\0")
        return None


def content_key(image_id: str) -> int:
    """Return the first 8 bytes of a sha256 given in hex."""
    return int(image_id[:16], 16)


def known_rows(folder: Path) -> KnownRows:
    """Return the keys of the rows in `folder`; they are empty where it holds no shard."""
    keys, labels, contents = [np.empty(0, "S16")], [np.empty(0, "S8")], [np.empty(0, np.uint64)]
    if any(folder.glob("*.parquet")):
        for batch in open_rows(folder, DATASET_SCHEMA).to_batches(columns=_COLUMNS):
            columns = [batch.column(name).to_pylist() for name in _COLUMNS]
            keys.append(np.array([row_key(*row) for row in zip(*columns[:2], strict=True)], "S16"))
            labels.append(np.array([label_key(*row) for row in zip(*columns[2:], strict=True)], "S8"))
            contents.append(np.array([content_key(image_id) for image_id in columns[1]], np.uint64))
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    return KnownRows(all_keys[order], np.concatenate(labels)[order], np.concatenate(contents))

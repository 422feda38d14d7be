"""Hash the rows that a dataset already holds: 40 bytes per row, so that ten million rows fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.data.ingest.photo_files import Labels

_LABELS = ("identity", "prompt", "face_prompt")
# The labels of which a known photo must not come with another value unnoticed.
RIGHTS = ("licence", "consent")
_COLUMNS = ["file_name", "image_id", *_LABELS, *RIGHTS]


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


def rights_key(value: str | None) -> int:
    """Return a 4-byte hash of one of RIGHTS."""
    return int.from_bytes(_digest((value,), 4), "big")


def changed_rights(labels: Labels, keys: Mapping[str, int]) -> list[str]:
    """Return which of RIGHTS a photo comes with in another value than its row, which has these `keys`."""
    given = {name: getattr(labels, name) for name in RIGHTS}
    return [name for name, value in given.items() if value is not None and rights_key(value) != keys[name]]


@dataclass(frozen=True)
class KnownRows:
    """The row keys of a dataset, sorted, with label and rights keys of each; content keys in the order of rows."""

    keys: np.ndarray  # (N,) S16
    labels: np.ndarray  # (N,) S8
    rights: np.ndarray  # (N, 2) uint32, in the order of RIGHTS
    contents: np.ndarray  # (N,) uint64, the first 8 bytes of each image_id

    def labels_of(self, key: bytes) -> tuple[bytes, dict[str, int]] | None:
        """Return label key and rights keys of the row with this key, or None where the dataset has no such row."""
        wanted = np.frombuffer(key, dtype="V16").view("S16")
        at = int(np.searchsorted(self.keys, wanted[0]))
        if at < len(self.keys) and self.keys[at].tobytes().ljust(16, b"\0") == key:
            rights = dict(zip(RIGHTS, self.rights[at].tolist(), strict=True))
            return bytes(self.labels[at]).ljust(8, b"\0"), rights
        return None


def content_key(image_id: str) -> int:
    """Return the first 8 bytes of a sha256 given in hex."""
    return int(image_id[:16], 16)


def known_rows(folder: Path) -> KnownRows:
    """Return the keys of the rows in `folder`; they are empty where it holds no shard."""
    keys, labels, contents = [np.empty(0, "S16")], [np.empty(0, "S8")], [np.empty(0, np.uint64)]
    rights = [np.empty((0, len(RIGHTS)), np.uint32)]
    if any(folder.glob("*.parquet")):
        for batch in open_rows(folder, DATASET_SCHEMA).to_batches(columns=_COLUMNS):
            columns = [batch.column(name).to_pylist() for name in _COLUMNS]
            keys.append(np.array([row_key(*row) for row in zip(*columns[:2], strict=True)], "S16"))
            labels.append(np.array([label_key(*row) for row in zip(*columns[2:5], strict=True)], "S8"))
            rights.append(np.array([[rights_key(value) for value in column] for column in columns[5:]], np.uint32).T)
            contents.append(np.array([content_key(image_id) for image_id in columns[1]], np.uint64))
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    return KnownRows(
        all_keys[order], np.concatenate(labels)[order], np.concatenate(rights)[order], np.concatenate(contents)
    )

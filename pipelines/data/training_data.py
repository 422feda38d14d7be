"""Read `data/processed` for `model.training`: labels and keys in one pass, pixels when they are needed.

The start of a training reads no picture: preprocessing has written the key of every photo (column `photo_key`). Rows of
an older format have none; there, every picture is read once more to compute it.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.face.face_prompts import EXPRESSIONS, POSES
from model.training.photos import UNKNOWN, PhotoContent, Photos
from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import CONTENT, OK, PROCESSED_SCHEMA, open_rows, photo_keys
from pipelines.core.sections.data import Rights
from pipelines.data.motion_labels import MOTION, motion_of
from pipelines.data.rights import COLUMNS, describe_left_out, refusal_of, refused_photos

_LABELS = ("identity", "prompt", *MOTION)
_COLUMNS = tuple(dict.fromkeys(("split", "status", "photo_key", *COLUMNS, *_LABELS)))
_ROWS_AT_ONCE = 512
# Photos whose content stays in memory, since latents, face crop and geometry of a photo are computed one after another.
_RECENT = 64


@dataclass(frozen=True)
class Permitted:
    """The photos of a split that may be trained on, and the number of others by reason."""

    photos: Photos
    left_out: dict[str, int]

    @property
    def refused(self) -> int:
        """Number of usable photos that `rights` does not permit."""
        return sum(self.left_out.values())


def permitted_photos(processed: Path, splits: Sequence[str], rights: Rights) -> dict[str, Permitted]:
    """Return the usable photos of each split that `rights` permits training on; print how many are left out.

    Raises what `read_photos` raises, and StageFailed where `rights` permits no photo of split train.
    """
    found = _read(processed, splits, rights)
    for split, permitted in found.items():
        if permitted.left_out:
            kept = len(permitted.photos)
            line = f"{processed}, split {split}: {describe_left_out(permitted.left_out, kept)}"
            if split == "train" and not kept:
                raise StageFailed(f"{line}; change the policy, or add consent and licence to the rows")
            print(line, file=sys.stderr)
    return found


def read_photos(processed: Path, split: str) -> Photos:
    """Return all usable photos of a split, in the order of shards and rows, without applying `rights`.

    Expression and pose are UNKNOWN where preprocessing left them open; a photo without a prompt has the empty text.
    Raises UserError where there are no shards, or an expression or pose is none of the words.
    """
    return _read(processed, (split,), None)[split].photos


def permitted_terms(processed: Path, split: str, rights: Rights) -> dict[str, dict[str, int]]:
    """Return how many of the permitted photos of a split have which consent, licence and source ("": none is known)."""
    shards = open_rows(processed, PROCESSED_SCHEMA).files
    refused = refused_photos(shards, rights)
    counts: dict[str, Counter[str]] = {column: Counter() for column in COLUMNS}
    for shard in shards:
        for row in _table(shard, ("image_id", "split", "status", *COLUMNS)).to_pylist():
            if (row["status"], row["split"]) == (OK, split) and refusal_of(rights, row, refused) is None:
                for column in COLUMNS:
                    counts[column][row[column] or ""] += 1
    return {column: dict(sorted(found.items())) for column, found in counts.items()}


def _read(processed: Path, splits: Sequence[str], rights: Rights | None) -> dict[str, Permitted]:
    shards = open_rows(processed, PROCESSED_SCHEMA).files
    policy = None if rights is None else _Policy(rights, refused_photos(shards, rights))
    pictures = _Pictures(shards)
    found = {split: _Split() for split in splits}
    for number, shard in enumerate(shards):
        table = _table(shard, _COLUMNS)
        usable = pc.equal(table["status"], OK).fill_null(False)
        for split, photos in found.items():
            wanted = pc.and_(usable, pc.equal(table["split"], split).fill_null(False))
            rows = np.flatnonzero(wanted.to_numpy())
            if policy is not None and len(rows):
                rows = policy.permitted(table, rows, photos.left_out)
            if len(rows):
                photos.add(table.take(pa.array(rows)), pictures, number, rows)
    return {split: photos.permitted(pictures) for split, photos in found.items()}


@dataclass(frozen=True)
class _Policy:
    """`rights`, the photos whose consent another row refuses, and the refusal of each combination of terms."""

    rights: Rights
    refused: frozenset[str]
    known: dict[tuple[str | None, ...], str | None] = field(default_factory=dict)

    def permitted(self, table: pa.Table, rows: np.ndarray, left_out: Counter[str]) -> np.ndarray:
        """Return the `rows` that may be trained on; count the others by reason."""
        there = table.select(["image_id", *COLUMNS]).take(pa.array(rows))
        kept = []
        for image_id, *terms in zip(*(column.to_pylist() for column in there.columns), strict=True):
            key = (*terms, image_id if image_id in self.refused else None)
            if key not in self.known:
                row = {"image_id": image_id, **dict(zip(COLUMNS, terms, strict=True))}
                self.known[key] = refusal_of(self.rights, row, self.refused)
            reason = self.known[key]
            kept.append(reason is None)
            if reason is not None:
                left_out[reason] += 1
        return rows[kept]


@dataclass
class _Split:
    """What is known of the photos of a split; texts are numbered in the order of their first occurrence."""

    people: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    motions: dict[tuple[str | None, ...], tuple[int, int]] = field(default_factory=dict)
    # One item a shard: some 60 bytes a photo in all.
    keys: list[bytes] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, usable: pa.Table, pictures: _Pictures, shard: int, rows: np.ndarray) -> None:
        """Add the photos in `rows` of a shard, whose labels are in the table `usable`."""
        place = np.stack([np.full(len(rows), shard), rows], axis=1)
        self.places.append(place)
        written = usable["photo_key"].to_pylist() if "photo_key" in usable.schema.names else [None]
        self.keys.append(b"".join(pictures.keys(place) if None in written else map(bytes.fromhex, written)))
        # Files of an older format lack columns that came later.
        there = [name for name in _LABELS if name in usable.schema.names]
        labels = []
        for row in usable.select(there).to_pylist():
            person = self.people.setdefault(row["identity"], len(self.people)) if row["identity"] else UNKNOWN
            prompt = self.prompts.setdefault(row["prompt"] or "", len(self.prompts))
            labels.append((person, prompt, *self._motion(row)))
        self.labels.append(np.array(labels, np.int32))

    def _motion(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Return the indices of a photo's expression and pose in EXPRESSIONS and POSES, UNKNOWN where they are open."""
        key = (row["expression"], row.get("pose"), row.get("pose_source"))
        if key in self.motions:
            return self.motions[key]
        expression, pose = motion_of(row)
        found = (
            UNKNOWN if expression is None else EXPRESSIONS.index(expression),
            UNKNOWN if pose is None else POSES.index(pose),
        )
        if any(key[1:]):  # else the pose depends on other columns
            self.motions[key] = found
        return found

    def permitted(self, pictures: _Pictures) -> Permitted:
        """Return the photos, and how many were left out."""
        table = np.concatenate([np.empty((0, 4), np.int32), *self.labels])
        located = np.concatenate([np.empty((0, 2), np.int64), *self.places])
        photos = Photos(
            keys=np.frombuffer(b"".join(self.keys), np.uint8).reshape(-1, 32),
            person=table[:, 0],
            people=list(self.people),
            prompt=table[:, 1],
            prompts=list(self.prompts),
            expression=table[:, 2].astype(np.int8),
            pose=table[:, 3].astype(np.int8),
            content=lambda positions: pictures.content(located[positions]),
        )
        return Permitted(photos, dict(sorted(self.left_out.items())))


def _table(shard: str, columns: Sequence[str]) -> pa.Table:
    """Return `columns` of a shard, those that it has."""
    with pq.ParquetFile(shard) as file:
        return file.read(columns=[name for name in columns if name in file.schema_arrow.names])


class _Pictures:
    """Read rows of shards by their places (N, 2), ascending pairs of shard and row; nothing is open meanwhile."""

    def __init__(self, shards: Sequence[str]) -> None:
        self._shards = shards
        self._recent: OrderedDict[tuple[int, int], PhotoContent] = OrderedDict()
        self._lock = Lock()

    def keys(self, places: np.ndarray) -> list[bytes]:
        """Return the keys of rows of one shard, made from their content."""
        return [key for rows in self._rows(places) for key in photo_keys(rows)]

    def content(self, places: np.ndarray) -> Iterator[PhotoContent]:
        """Yield the photos at `places`; those read last are still in memory."""
        wanted = [(int(shard), int(row)) for shard, row in places]
        with self._lock:
            known = {place: self._recent[place] for place in wanted if place in self._recent}
        absent = places[[place not in known for place in wanted]]
        read = (_photo(row) for rows in self._rows(absent) for row in rows.to_pylist())
        for place in wanted:
            photo = known.get(place) or next(read)
            with self._lock:
                self._recent[place] = photo
                while len(self._recent) > _RECENT:
                    self._recent.popitem(last=False)
            yield photo

    def _rows(self, places: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Yield the rows at `places` in their order; read only the row groups that they are in."""
        for number in np.unique(places[:, 0]):
            rows = places[places[:, 0] == number, 1]
            with pq.ParquetFile(self._shards[number]) as file:
                ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
                for group in np.unique(np.searchsorted(ends, rows, "right")):
                    start = int(ends[group]) - file.metadata.row_group(int(group)).num_rows
                    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[int(group)], columns=list(CONTENT)):
                        here = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
                        start += batch.num_rows
                        if len(here):
                            yield batch.take(pa.array(here))


def _photo(row: dict[str, Any]) -> PhotoContent:
    decoded = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)
    return PhotoContent(
        image=cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB),
        bbox=np.asarray(row["bbox"], np.float32),
        keypoints=np.asarray(row["keypoints"], np.float32).reshape(5, 2),
        landmarks=np.asarray(row["landmarks"], np.float32).reshape(68, 2),
        embedding=np.asarray(row["embedding"], np.float32),
    )

"""Read `data/processed` for `model.training`: labels and keys in one pass, pixels when they are needed."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.face.face_prompts import EXPRESSIONS, POSES
from model.training.photos import UNKNOWN, PhotoContent, Photos
from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, open_rows
from pipelines.core.sections.data import Rights
from pipelines.data.motion_labels import MOTION, motion_of
from pipelines.data.rights import COLUMNS, describe_left_out, refusal_of, refused_photos

# The columns of a photo's content that training reads and `photo_keys` hashes.
CONTENT = ("image", "bbox", "keypoints", "landmarks", "embedding")
_LABELS = ("identity", "prompt", *MOTION[1:])
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Permitted:
    """The photos of a split that may be trained on, and the number of others by reason."""

    photos: Photos
    left_out: dict[str, int]

    @property
    def refused(self) -> int:
        """Number of usable photos that `rights` does not permit."""
        return sum(self.left_out.values())


def permitted_photos(processed: Path, split: str, rights: Rights) -> Permitted:
    """Return the usable photos of a split that `rights` permits training on; print how many are left out.

    Raises what `read_photos` raises, and StageFailed where `rights` permits no photo of split train.
    """
    left_out: Counter[str] = Counter()
    photos = _read(processed, split, rights, left_out)
    if left_out:
        line = f"{processed}, split {split}: {describe_left_out(left_out, len(photos))}"
        if split == "train" and not len(photos):
            raise StageFailed(f"{line}; change the policy, or add consent and licence to the rows")
        print(line, file=sys.stderr)
    return Permitted(photos, dict(sorted(left_out.items())))


def read_photos(processed: Path, split: str) -> Photos:
    """Return all usable photos of a split, in the order of shards and rows, without applying `rights`.

    Expression and pose are UNKNOWN where preprocessing left them open; a photo without a prompt has the empty text.
    Raises UserError where there are no shards, or an expression or pose is none of the words.
    """
    return _read(processed, split, None, Counter())


def permitted_terms(processed: Path, split: str, rights: Rights) -> dict[str, dict[str, int]]:
    """Return how many of the permitted photos of a split have which consent, licence and source ("": none is known)."""
    shards = open_rows(processed, PROCESSED_SCHEMA).files
    refused = refused_photos(shards, rights)
    counts: dict[str, Counter[str]] = {column: Counter() for column in COLUMNS}
    for shard in shards:
        for _, batch in _batches(shard, ("image_id", "split", "status", *COLUMNS)):
            for row in batch.to_pylist():
                if (row["status"], row["split"]) == (OK, split) and refusal_of(rights, row, refused) is None:
                    for column in COLUMNS:
                        counts[column][row[column] or ""] += 1
    return {column: dict(sorted(found.items())) for column, found in counts.items()}


def _read(processed: Path, split: str, rights: Rights | None, left_out: Counter[str]) -> Photos:
    shards = open_rows(processed, PROCESSED_SCHEMA).files
    refused = frozenset() if rights is None else refused_photos(shards, rights)
    # Distinct texts → number, in the order of their first occurrence.
    people: dict[str, int] = {}
    prompts: dict[str, int] = {}
    keys: list[bytes] = []
    labels: list[tuple[int, int, int, int]] = []
    places: list[tuple[int, int]] = []
    for number, shard in enumerate(shards):
        columns = ("image_id", "split", "status", *COLUMNS, *CONTENT, *_LABELS)
        for start, batch in _batches(shard, columns):
            wanted = pc.and_(pc.equal(batch["status"], OK), pc.equal(batch["split"], split))
            rows = np.flatnonzero(wanted.fill_null(False).to_numpy(zero_copy_only=False))
            if rights is not None and len(rows):
                rows = _permitted_rows(batch, rows, rights, refused, left_out)
            if not len(rows):
                continue
            usable = batch.take(pa.array(rows))
            keys += photo_keys(usable)
            # Files of an older format lack columns that came later.
            there = [name for name in ("image_id", *_LABELS) if name in usable.schema.names]
            for row in usable.select(there).to_pylist():
                person = people.setdefault(row["identity"], len(people)) if row["identity"] else UNKNOWN
                labels.append((person, prompts.setdefault(row["prompt"] or "", len(prompts)), *_motion(row)))
            places += [(number, start + int(row)) for row in rows]
    table = np.array(labels, np.int32).reshape(-1, 4)
    located = np.array(places, np.int64).reshape(-1, 2)
    return Photos(
        keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
        person=table[:, 0],
        people=list(people),
        prompt=table[:, 1],
        prompts=list(prompts),
        expression=table[:, 2].astype(np.int8),
        pose=table[:, 3].astype(np.int8),
        content=lambda positions: _content(shards, located[positions]),
    )


def _permitted_rows(
    batch: pa.RecordBatch, rows: np.ndarray, rights: Rights, refused: frozenset[str], left_out: Counter[str]
) -> np.ndarray:
    """Return the `rows` that may be trained on; count the others by reason."""
    labels = batch.select(["image_id", *COLUMNS]).take(pa.array(rows)).to_pylist()
    refusals = [refusal_of(rights, row, refused) for row in labels]
    left_out.update(reason for reason in refusals if reason is not None)
    return rows[[reason is None for reason in refusals]]


def _batches(shard: str, columns: tuple[str, ...]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of the rows of a shard in order, each with the number of its first row."""
    start = 0
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
            yield start, batch
            start += batch.num_rows


def photo_keys(batch: pa.RecordBatch) -> list[bytes]:
    """Return for each accepted photo the sha256 (32 bytes) of its columns CONTENT: the photo's key in every cache."""
    columns = [batch[name].flatten().to_numpy().reshape(batch.num_rows, -1) for name in CONTENT[1:]]
    numbers = np.concatenate(columns, axis=1).astype("<f4")
    return [
        hashlib.sha256(b"".join((image.as_py(), row.tobytes()))).digest()
        for image, row in zip(batch["image"], numbers, strict=True)
    ]


def _motion(row: dict[str, Any]) -> tuple[int, int]:
    """Return the indices of a photo's expression and pose in EXPRESSIONS and POSES, UNKNOWN where they are open."""
    expression, pose = motion_of(row)
    return (
        UNKNOWN if expression is None else EXPRESSIONS.index(expression),
        UNKNOWN if pose is None else POSES.index(pose),
    )


def _content(shards: list[str], located: np.ndarray) -> Iterator[PhotoContent]:
    """Yield the photos at `located` (N, 2), ascending pairs of shard and row; open only the shards named there."""
    for number in np.unique(located[:, 0]):
        rows = located[located[:, 0] == number, 1]
        for start, batch in _batches(shards[number], CONTENT):
            here = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
            for row in batch.take(pa.array(here)).to_pylist():
                yield _photo(row)


def _photo(row: dict[str, Any]) -> PhotoContent:
    decoded = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)
    return PhotoContent(
        image=cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB),
        bbox=np.asarray(row["bbox"], np.float32),
        keypoints=np.asarray(row["keypoints"], np.float32).reshape(5, 2),
        landmarks=np.asarray(row["landmarks"], np.float32).reshape(68, 2),
        embedding=np.asarray(row["embedding"], np.float32),
    )

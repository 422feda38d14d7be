"""Real photos of held-out people, read from the processed rows."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds

from model.face.face import Face
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, open_rows, read_rows
from pipelines.core.sections.data import Rights
from pipelines.core.words import counted
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.motion_labels import MOTION, motion_of
from pipelines.data.rights import COLUMNS, describe_left_out, refusal_of, refused_photos
from pipelines.versions.forgotten import refuse_forgotten


@dataclass(frozen=True)
class PhotoRecord:
    """A held-out photo without pixels: `expression` and `pose` as in face_prompts, None where they are open.

    `turned` is |yaw| in degrees.
    """

    image_id: str
    identity: str
    expression: str | None
    pose: str | None
    turned: float
    prompt: str


@dataclass(frozen=True)
class Photo:
    """A real photo and its face.

    `encoded` are the bytes of its picture, decoded whenever it is read; `bbox` (4,), `keypoints` (5, 2) and `landmarks`
    (68, 2) float32 in its pixels; `embedding` (512,) float32, unit norm, of the recogniser that conditions the model;
    `yaw` and `pitch` in degrees, as preprocessing measured them.
    """

    record: PhotoRecord
    encoded: bytes
    bbox: np.ndarray
    keypoints: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray
    yaw: float
    pitch: float | None = None

    @property
    def image(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB."""
        decoded = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    def face(self, inputs: FaceInputs) -> Face:
        """Return the model's input for this face; raises as `FaceInputs.face`."""
        return inputs.face(self.image, self, self.record.expression, self.record.pose)


@dataclass(frozen=True)
class HeldOut:
    """The held-out people: `records` of all usable photos, and `photos` of the evaluation set by image id.

    `left_out` are people who take no part, as networks that ship were trained on them.
    """

    records: Sequence[PhotoRecord]
    photos: Mapping[str, Photo]
    left_out: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Return the sha256 (hex) of all that the evaluation reads of its photos."""
        total = hashlib.sha256()
        for name, photo in sorted(self.photos.items()):
            total.update(f"{name} {photo.record}\n".encode())
            for values in (photo.image, photo.keypoints, photo.landmarks, photo.embedding):
                total.update(np.ascontiguousarray(values).tobytes())
        return total.hexdigest()


def held_out_records(processed: Path, rights: Rights, split: str = "test") -> list[PhotoRecord]:
    """Return the accepted, permitted photos of named people in `split` (test or val), in the order of the rows.

    Print how many photos `rights` leaves out. Raises UserError where no held-out photo has an identity, StageFailed
    where a held-out person also has photos in another split, where there are photos of the forgotten, or where `rights`
    permits no held-out photo.
    """
    refuse_forgotten(processed)
    columns = ["identity", "prompt", *MOTION, *COLUMNS]
    held_out = ds.field("split") == split
    accepted = read_rows(processed, PROCESSED_SCHEMA, columns, held_out & (ds.field("status") == OK)).to_pylist()
    refused = refused_photos(open_rows(processed, PROCESSED_SCHEMA).files, rights)
    reasons = [refusal_of(rights, row, refused) for row in accepted]
    rows = [row for row, reason in zip(accepted, reasons, strict=True) if reason is None]
    if len(rows) < len(accepted):
        left_out = Counter(filter(None, reasons))
        line = f"{processed}, split {split}: {describe_left_out(left_out, len(rows))}"
        if not rows:
            raise StageFailed(f"{line}; change the policy, or add consent and licence to the rows")
        print(line, file=sys.stderr)
    known = [row for row in rows if row["identity"]]
    if not known:
        raise UserError(
            f"{processed}: none of {counted(len(rows), 'held-out photo')} has a known identity; identity metrics need "
            f"people: group the photos with `dynamicid curate`, or raise preprocess.{split}_share"
        )
    people = {row["identity"] for row in known}
    elsewhere = read_rows(processed, PROCESSED_SCHEMA, ["identity"], ds.field("split") != split).column("identity")
    shared = people & set(elsewhere.unique().to_pylist())
    if shared:
        raise StageFailed(
            f"{processed}: {counted(len(shared), 'held-out person', 'held-out people')} with photos in another split, "
            f"too ({min(shared)}, …); splits must be by identity: run preprocess again"
        )
    return [_record(row) for row in known]


def _record(row: dict[str, object]) -> PhotoRecord:
    expression, pose = motion_of(row)
    return PhotoRecord(
        image_id=str(row["image_id"]),
        identity=str(row["identity"]),
        expression=expression,
        pose=pose,
        turned=abs(float(row["yaw"])),  # type: ignore[arg-type]
        prompt=str(row["prompt"] or ""),
    )


def read_photos(processed: Path, records: Sequence[PhotoRecord], ids: Iterable[str]) -> HeldOut:
    """Read pixels and geometry of the photos `ids`, each described in `records`."""
    known = {record.image_id: record for record in records}
    wanted = {name: known[name] for name in ids}
    columns = ["image_id", "image", "bbox", "keypoints", "landmarks", "embedding", "yaw", "pitch"]
    where = ds.field("image_id").isin(list(wanted)) & (ds.field("status") == OK)
    photos = {}
    for row in read_rows(processed, PROCESSED_SCHEMA, columns, where).to_pylist():
        photos[row["image_id"]] = Photo(
            record=wanted[row["image_id"]],
            encoded=row["image"],
            bbox=np.asarray(row["bbox"], np.float32),
            keypoints=np.asarray(row["keypoints"], np.float32).reshape(5, 2),
            landmarks=np.asarray(row["landmarks"], np.float32).reshape(68, 2),
            embedding=np.asarray(row["embedding"], np.float32),
            yaw=float(row["yaw"]),
            pitch=None if row["pitch"] is None else float(row["pitch"]),
        )
    return HeldOut(records, photos)

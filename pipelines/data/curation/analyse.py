"""Analyse photos on the workers: find every face, and write rows of STATE_SCHEMA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from model.face.face_geometry import crop_landmarks, face_crop
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.paths import refuse_pointer
from pipelines.core.sections.data import Curate, Preprocess
from pipelines.data.curation.records import STATE_SCHEMA, write_rows
from pipelines.data.faces.analysis import Analyser, in_one_line, load_analyser, one_by_one_on_error
from pipelines.data.faces.captions import CaptionChain, load_captions
from pipelines.data.faces.decode import Decoded, Undecodable, decode
from pipelines.data.faces.framing import encode_jpeg, frame_face
from pipelines.data.faces.protocols import CaptionRequest
from pipelines.data.faces.quality import sharpness
from pipelines.data.faces.record import FoundFace
from pipelines.data.faces.votes import FaceView

# Photos decoded at once, and their pixels, which bound the memory.
_BATCH, _BATCH_PIXELS = 16, 24_000_000
_THUMBNAIL, _THUMBNAIL_QUALITY = 96, 85
# The side of an aligned crop, and its rows and columns between brows and chin: they never show the background.
_TEXTURE_SIDE, _TEXTURE_ROWS, _TEXTURE_COLUMNS = 40, slice(15, 31), slice(12, 28)
_EXPRESSION_SIDE, _EXPRESSION_SHARE = 128, 0.5


@dataclass(frozen=True)
class Photo:
    """A photo to analyse: its key in the state, its name in the source, its path and its own face prompt."""

    key: str
    file_name: str
    path: str
    face_prompt: str | None = None


@dataclass(frozen=True)
class AnalyseTask:
    """The photos of one task and the file for its rows; `params` is JSON, sent to workers and used as a cache key."""

    photos: tuple[Photo, ...]
    params: str
    out: str


def analyse_and_write(task: AnalyseTask) -> str:
    """Analyse the photos of a task and write their rows; return the error in the configuration, or ""."""
    try:
        table = analyse_photos(task.photos, Params.model_validate_json(task.params).curate, *_networks(task.params))
    except UserError as error:
        return str(error)
    write_rows(table, Path(task.out))
    return ""


@lru_cache(maxsize=1)
def _networks(params: str) -> tuple[Analyser, CaptionChain, Preprocess]:
    section = Params.model_validate_json(params).preprocess
    # Only sources that recognise expressions are needed here; selected photos get their prompts when they are written.
    sources = tuple(name for name in section.captions.sources if name != "internvl")
    captions = section.captions.model_copy(update={"sources": sources})
    return load_analyser(section), load_captions(captions, prompts_only=bool(section.expression.networks)), section


def analyse_photos(
    photos: Sequence[Photo], params: Curate, analyser: Analyser, expressions: CaptionChain, preprocess: Preprocess
) -> pa.Table:
    """Return one row (STATE_SCHEMA) per face, the largest of a photo first, and one row per photo without a face."""
    rows: list[dict[str, Any]] = []
    for batch in _decoded(photos, params, preprocess, rows):
        rows += one_by_one_on_error(
            lambda part: _faces(part, analyser, expressions),
            batch,
            lambda item, error: _row(item[0], item[1], reason="analyser_failed", detail=in_one_line(error)),
        )
    rows.sort(key=lambda row: (row["file_name"], row["face_index"] or 0))
    return pa.Table.from_pylist(rows, schema=STATE_SCHEMA)


def _decoded(
    photos: Sequence[Photo], params: Curate, preprocess: Preprocess, rows: list[dict[str, Any]]
) -> Iterator[list[tuple[Photo, str, Decoded]]]:
    """Yield batches of decoded photos, with the sha256 of their bytes; append a row to `rows` for each other photo."""
    batch: list[tuple[Photo, str, Decoded]] = []
    pixels = 0
    for photo in photos:
        try:
            data = Path(photo.path).read_bytes()
        except OSError as error:
            rows.append(_row(photo, None, reason="not_read", detail=error.strerror or type(error).__name__))
            continue
        refuse_pointer(data, photo.path)
        image_id = hashlib.sha256(data).hexdigest()
        try:
            sides = {"min_side": params.min_face_side, "working_side": params.working_side}
            decoded = decode(data, max_pixels=preprocess.max_pixels, **sides)
        except Undecodable as error:
            rows.append(_row(photo, image_id, reason=error.reason, detail=str(error)))
            continue
        batch.append((photo, image_id, decoded))
        pixels += decoded.image.size // 3
        if len(batch) == _BATCH or pixels > _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _faces(
    batch: Sequence[tuple[Photo, str, Decoded]], analyser: Analyser, expressions: CaptionChain
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    requests: list[CaptionRequest] = []
    shown: list[FaceView] = []
    views = [analyser.upright(decoded.image) for _, _, decoded in batch]
    images = [view.image for view in views]
    found = analyser.analyse_images(views, embed=True)
    mirrored = iter(analyser.embed_mirrored(images, found) if analyser.traits.mirror else ())
    for (photo, image_id, stored), view, faces in zip(batch, views, found, strict=True):
        decoded = replace(stored, image=view.image)
        if not faces:
            rows.append(_row(photo, image_id, decoded, reason="no_face"))
        elif view.turned is None:
            rows.append(_row(photo, image_id, decoded, reason="turned"))
            for _ in faces:
                next(mirrored, None)
            continue
        for index, original in enumerate(faces):
            # Averaging with the mirror image makes faces turned left and faces turned right more similar.
            mirror = next(mirrored, None)
            face = original if mirror is None else replace(original, embedding=_mean_direction(original, mirror))
            rows.append(_row(photo, image_id, decoded, face=face, index=index, n_faces=len(faces)))
            rows[-1]["turned"] = view.turned
            requests.append(_request(decoded.image, face, photo.face_prompt if len(faces) == 1 else None))
            shown.append(FaceView(decoded.image, face.bbox, face.keypoints))
    with_face = [row for row in rows if row["face_index"] is not None]
    captions = analyser.expressions.complete(expressions.describe(requests), shown) if requests else []
    for row, caption in zip(with_face, captions, strict=True):
        row["expression"] = caption.expression
    return rows


def _row(
    photo: Photo,
    image_id: str | None,
    decoded: Decoded | None = None,
    *,
    face: FoundFace | None = None,
    index: int | None = None,
    n_faces: int = 0,
    reason: str | None = None,
    detail: str | None = None,
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(STATE_SCHEMA.names)
    row |= {"key": photo.key, "file_name": photo.file_name, "image_id": image_id, "reason": reason, "detail": detail}
    row["n_faces"] = n_faces
    if decoded is not None:
        height, width = (round(side * decoded.reduction) for side in decoded.image.shape[:2])
        row |= {"width": width, "height": height}
    if decoded is not None and face is not None and face.embedding is not None:
        box = face.bbox * decoded.reduction
        row |= {
            "face_index": index,
            "bbox": box.astype(np.float32),
            "landmarks": crop_landmarks(face.landmarks, face.keypoints).reshape(-1),
            "det_score": face.det_score,
            "side": float(min(box[2] - box[0], box[3] - box[1])),
            "sharpness": sharpness(decoded.image, face.bbox),
            "yaw": face.pose.yaw,
            "pitch": face.pose.pitch,
            "roll": face.pose.roll,
            "embedding": face.embedding,
            "texture": texture(decoded.image, face).tobytes(),
            "thumbnail": thumbnail(decoded.image, face.bbox),
        }
    return row


def _mean_direction(face: FoundFace, mirror: np.ndarray) -> np.ndarray:
    both = mirror if face.embedding is None else face.embedding + mirror
    return np.asarray(both / max(float(np.linalg.norm(both)), 1e-12), np.float32)


def texture(image: np.ndarray, face: FoundFace) -> np.ndarray:
    """Return (16, 16) uint8 grey values of the aligned face between brows and chin."""
    crop = face_crop(image, face.keypoints, face.landmarks, _TEXTURE_SIDE)
    grey: np.ndarray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(grey[_TEXTURE_ROWS, _TEXTURE_COLUMNS])


def thumbnail(image: np.ndarray, bbox: np.ndarray) -> bytes:
    """Return the surroundings of a face as a small JPEG, for contact sheets."""
    height, width = image.shape[:2]
    return encode_jpeg(frame_face(width, height, bbox, _THUMBNAIL, 0.6).cut(image), _THUMBNAIL_QUALITY)


def _request(image: np.ndarray, face: FoundFace, face_prompt: str | None) -> CaptionRequest:
    frame = frame_face(image.shape[1], image.shape[0], face.bbox, _EXPRESSION_SIDE, _EXPRESSION_SHARE)
    return CaptionRequest(frame.cut(image), frame.box(face.bbox), None, face_prompt)

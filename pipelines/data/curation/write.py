"""Write the chosen photos with their texts on the workers, in one folder per identity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from model.face.face_prompts import compose, pose_of_yaw
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.sections.data import Preprocess
from pipelines.data.curation.cut import Box
from pipelines.data.faces.captions import CaptionChain, load_captions
from pipelines.data.faces.decode import decode
from pipelines.data.faces.framing import encode_jpeg, frame_face
from pipelines.data.faces.protocols import CaptionRequest
from pipelines.data.faces.turning import turn_clockwise

_BATCH = 16
_CUT_QUALITY = 95


@dataclass(frozen=True)
class Chosen:
    """One face to write: its row, the photo's path, the file to write, and the given and measured parts of its texts.

    `cut` (left, top, right, bottom) is the part of the photo that is written, None to copy the file; `bbox` is the
    face; both in pixels of the photo, turned by `turned` degrees clockwise. `rights` are the photo's source,
    licence and consent, where known.
    """

    row: int
    path: str
    file: str
    turned: int
    cut: Box | None
    bbox: tuple[float, float, float, float]
    prompt: str | None
    face_prompt: str | None
    expression: str | None
    yaw: float
    rights: dict[str, str]


@dataclass(frozen=True)
class Written:
    """The texts of a chosen face, None where nothing is known; `failed`: a caption failed, and nothing was written."""

    row: int
    prompt: str | None
    face_prompt: str | None
    failed: bool = False


@dataclass(frozen=True)
class WriteTask:
    """The faces that one task writes; `params` is JSON."""

    faces: tuple[Chosen, ...]
    params: str


def write_chosen(task: WriteTask) -> list[Written] | str:
    """Write photos and texts of a task; return the texts, or the error in the configuration."""
    captions, params = _caption_sources(task.params)
    written: list[Written] = []
    try:
        for start in range(0, len(task.faces), _BATCH):
            written += _write(task.faces[start : start + _BATCH], captions, params)
    except UserError as error:
        return str(error)
    return written


@lru_cache(maxsize=1)
def _caption_sources(params: str) -> tuple[CaptionChain, Preprocess]:
    section = Params.model_validate_json(params).preprocess
    return load_captions(section.captions, prompts_only=bool(section.expression.networks)), section


def _write(faces: Sequence[Chosen], captions: CaptionChain, params: Preprocess) -> list[Written]:
    requests: list[CaptionRequest] = []
    cuts: list[bytes | None] = []
    for face in faces:
        data = Path(face.path).read_bytes()
        # A cut needs all pixels of the photo; a caption needs no more than `preprocess.resolution`.
        side = 2**31 if face.cut else 2 * params.resolution
        decoded = decode(data, max_pixels=params.max_pixels, min_side=1, working_side=side)
        image, box = turn_clockwise(decoded.image, face.turned), np.array(face.bbox, np.float32) / decoded.reduction
        if face.cut:
            left, top, right, bottom = face.cut
            image = np.ascontiguousarray(image[top:bottom, left:right])
            box = box - np.array([left, top, left, top], np.float32)
        cuts.append(encode_jpeg(image, _CUT_QUALITY) if face.cut else None)
        frame = frame_face(image.shape[1], image.shape[0], box, params.resolution, 0.0)
        requests.append(CaptionRequest(frame.cut(image), frame.box(box), face.prompt, face.face_prompt))
    written = []
    for face, cut, caption in zip(faces, cuts, captions.describe(requests), strict=True):
        if caption.failed:
            written.append(Written(face.row, None, None, failed=True))
            continue
        file = Path(face.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        if cut is None:
            shutil.copyfile(face.path, file)
        else:
            file.write_bytes(cut)
        face_prompt = face.face_prompt
        if not face_prompt and not (params.expression.networks or params.pose.networks):
            face_prompt = compose(face.expression or caption.expression, pose_of_yaw(face.yaw))
        # What networks see in the photo, preprocessing asks them again, and keeps how sure they are.
        if caption.prompt or face_prompt:
            texts = f"{caption.prompt or ''}\n{face_prompt or ''}\n"
            file.with_suffix(".txt").write_text(texts, encoding="utf-8")
        if face.rights:
            file.with_suffix(".json").write_text(json.dumps(face.rights, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(Written(face.row, caption.prompt, face_prompt))
    return written

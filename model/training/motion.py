"""The IMR's conditions: the landmark picture of a face and the pooled text of its face prompt.

Only the 35 canonical texts ("sad, slightly turned to the left") occur, because the pipeline maps every request to one
of them, and their parts where expression or pose is not known. Target landmarks are often a template retargeted to the
source: at inference, the true ones are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.face.face_geometry import landmark_picture
from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.network.base import Base
from model.network.templates import build_bank, retarget
from model.training.photos import UNKNOWN, Photos
from model.training.records import FaceRecords

# More photos give no better mean shapes.
_BANK_PHOTOS = 50_000


def face_prompt_states(base: Base) -> Tensor:
    """Return the pooled text of every face prompt, (8, 6, D) float32 on the host; the last ones: not known."""
    known = [compose(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    canonical = base.encode_text(known)[1].float().cpu().unflatten(0, (len(EXPRESSIONS), len(POSES)))
    # By themselves: what the canonical texts give must not depend on the size of their batch.
    partial = [*(compose(expression, None) for expression in EXPRESSIONS), *(compose(None, pose) for pose in POSES), ""]
    without_pose, without_expression = (
        base.encode_text(partial)[1].float().cpu().split((len(EXPRESSIONS), len(POSES) + 1))
    )
    return torch.cat([torch.cat([canonical, without_pose[:, None]], 1), without_expression[None]])


def template_bank(photos: Photos, faces: FaceRecords) -> np.ndarray:
    """Return templates (7, 5, 68, 2) from at most 50,000 evenly spaced photos."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(len(photos), _BANK_PHOTOS)).astype(np.int64))
    return build_bank(
        faces.landmarks(chosen),
        [_word(EXPRESSIONS, number) for number in photos.expression[chosen]],
        [_word(POSES, number) for number in photos.pose[chosen]],
    )


@dataclass(frozen=True)
class Motion:
    """Landmarks and face prompts of the photos of one split, and the templates of the training people."""

    photos: Photos
    faces: FaceRecords
    texts: Tensor
    bank: np.ndarray

    def labels(self, row: int) -> tuple[str | None, str | None]:
        """Return the expression and pose of a photo, None where they are not known."""
        return _word(EXPRESSIONS, self.photos.expression[row]), _word(POSES, self.photos.pose[row])

    def text(self, rows: np.ndarray) -> Tensor:
        """Return the pooled text (B, D) of the photos' face prompts."""
        return self.texts[self.photos.expression[rows], self.photos.pose[rows]]

    def landmark_pictures(self, rows: np.ndarray) -> Tensor:
        """Return the landmark pictures (B, 1, 96, 96) of photos."""
        return _draw(self.faces.landmarks(rows))

    def target_pictures(self, source: int, targets: np.ndarray, templates: np.ndarray) -> Tensor:
        """Return landmark pictures (T, 1, 96, 96) of `targets`, photos of the person in photo `source`.

        They show the target's template, retargeted to the source, where `templates` (T,) is true and expression and
        pose of the target are known, else true landmarks.
        """
        points = self.faces.landmarks(targets).copy()
        shape = self.faces.landmarks(np.array([source]))[0]
        retargeted: dict[tuple[str | None, str | None], np.ndarray] = {}
        for number in np.flatnonzero(templates):
            labels = self.labels(targets[number])
            if None in labels:
                continue
            if labels not in retargeted:
                retargeted[labels] = retarget(self.bank, shape, *self.labels(source), *labels)
            points[number] = retargeted[labels]
        return _draw(points)


def _word(words: tuple[str, ...], number: int) -> str | None:
    return None if number == UNKNOWN else words[number]


def _draw(points: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([landmark_picture(shape) for shape in points]))

"""What the IMR is told about a face: its landmark picture and the pooled text of its face prompt.

Texts are canonical ("sad, slightly turned to the left"), thirty-five in all, because that is what the pipeline reads a
wish into. Target landmarks are often a template moved to the source's shape: in use nobody knows the person's own.
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
from model.training.encode import FaceRecords
from model.training.photos import Photos

# Ten million photos give no better mean shapes than fifty thousand.
_BANK_PHOTOS = 50_000


def face_prompt_states(base: Base) -> Tensor:
    """Return the pooled text of every canonical face prompt, (7, 5, D) float32 on the host."""
    prompts = [compose(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    pooled = base.encode_text(prompts)[1]
    return pooled.float().cpu().unflatten(0, (len(EXPRESSIONS), len(POSES)))


def template_bank(photos: Photos, faces: FaceRecords) -> np.ndarray:
    """Return the templates (7, 5, 68, 2) of the training people, from evenly spaced photos where there are many."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(len(photos), _BANK_PHOTOS)).astype(np.int64))
    return build_bank(
        faces.landmarks(chosen),
        [EXPRESSIONS[number] for number in photos.expression[chosen]],
        [POSES[number] for number in photos.pose[chosen]],
    )


@dataclass(frozen=True)
class Motion:
    """Landmarks and face prompts of the photos of one split, and the templates of the training people."""

    photos: Photos
    faces: FaceRecords
    texts: Tensor
    bank: np.ndarray

    def words(self, row: int) -> tuple[str, str]:
        """Return the expression and the pose that a photo shows."""
        return EXPRESSIONS[self.photos.expression[row]], POSES[self.photos.pose[row]]

    def text(self, rows: np.ndarray) -> Tensor:
        """Return the pooled text of photos' face prompts, (B, D)."""
        return self.texts[self.photos.expression[rows], self.photos.pose[rows]]

    def own_pictures(self, rows: np.ndarray) -> Tensor:
        """Return the landmark pictures of photos, (B, 1, 96, 96)."""
        return _drawn(self.faces.landmarks(rows))

    def target_pictures(self, source: int, targets: np.ndarray, templates: np.ndarray) -> Tensor:
        """Return landmark pictures (T, 1, 96, 96) of `targets`, photos of the person in photo `source`.

        Where `templates` (T,) is true, the template of the target's words moved to the source's shape; else its own.
        """
        points = self.faces.landmarks(targets).copy()
        shape = self.faces.landmarks(np.array([source]))[0]
        known: dict[tuple[str, str], np.ndarray] = {}
        for number in np.flatnonzero(templates):
            words = self.words(targets[number])
            if words not in known:
                known[words] = retarget(self.bank, shape, *self.words(source), *words)
            points[number] = known[words]
        return _drawn(points)


def _drawn(points: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([landmark_picture(shape) for shape in points]))

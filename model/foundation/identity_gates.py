"""Measurements of an adapter's identity tokens and IMR on people outside the training sets.

Tokens must contain the expression and pose of their photo (otherwise no IMR could change these), the base model must
follow the tokens, and the IMR must beat two baselines: the source's tokens and the mean tokens of the person.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.face.face import Face
from model.face.face_geometry import crop_landmarks, face_crop
from model.face.face_prompts import EXPRESSIONS, POSES
from model.foundation.augment import normalised
from model.foundation.face_networks import FILES
from model.foundation.people import Array, People
from model.foundation.readers import FaceReader, OnnxNetwork
from model.foundation.recogniser import aligned
from model.foundation.text_to_image import Sampling, balanced_rows, draw_pictures, face_accuracies

ADAPTER = "adapter/adapter.safetensors"
FOLDS = 5
SOURCES = 3
PEOPLE = 16


class AdapterBench:
    """A pipeline with the adapter; faces and tokens of `photos`, which are smaller copies of those of `people`."""

    def __init__(self, weights: Path, adapter: Path, people: People, photos: Array) -> None:
        from model.inference.pipeline import DynamicIDPipeline

        self.pipe: Any = DynamicIDPipeline.from_folders(weights / "sd", weights / "image_encoder", adapter)
        self.people, self.photos = people, photos
        scale = photos.shape[1] / people.photos.shape[1]
        points = np.asarray(people.keypoints) * scale
        outlines = np.asarray(people.landmarks) * scale
        recogniser = OnnxNetwork(weights / FILES["recogniser"])
        size = self.pipe.crop_size
        self.faces = []
        for row, photo in enumerate(np.asarray(photos)):
            embedding = recogniser(normalised(aligned(photo, points[row])[None]))[0].numpy()
            self.faces.append(
                Face(
                    embedding=embedding / np.linalg.norm(embedding),
                    crop=face_crop(photo, points[row], outlines[row], size),
                    landmarks=crop_landmarks(outlines[row], points[row]),
                    expression=EXPRESSIONS[people.expression[row]],
                    pose=POSES[people.pose[row]],
                )
            )
        self.tokens = self.tokens_of(self.faces)

    def tokens_of(self, faces: list[Face], prompts: list[str] | None = None) -> Array:
        """Return the tokens (N, K, D) of `faces`; with `prompts`, the IMR changes them to these face prompts."""
        parts = []
        for start in range(0, len(faces), 64):
            texts = None if prompts is None else [[text] for text in prompts[start : start + 64]]
            parts.append(self.pipe.tokens_of([[face] for face in faces[start : start + 64]], texts).float().numpy())
        return np.concatenate(parts)


def probe(tokens: Array, labels: Array, identity: Array) -> float:
    """Return the accuracy of predicting labels (N,) linearly from tokens (N, K, D), cross-validated over people."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = GroupKFold(min(FOLDS, len(np.unique(identity))))
    read = cross_val_predict(reader, tokens.reshape(len(tokens), -1), labels, groups=identity, cv=folds)
    return float((read == labels).mean())


def measure_tokens(bench: AdapterBench, reader: FaceReader, sampling: Sampling) -> dict[str, float]:
    """Return how well tokens predict expression and pose, and how well the base model follows the tokens.

    Pictures are generated twice from the same noise: from the prompt with the photo's tokens, and without tokens from
    a prompt that also names expression and pose.
    """
    people = bench.people
    expression, pose = np.asarray(people.expression), np.asarray(people.pose)
    rows = balanced_rows(people, sampling.pictures)
    prompts = [people.prompts[row] for row in rows]
    by_tokens = draw_pictures(bench.pipe, prompts, sampling, identity_tokens=bench.tokens[rows])
    texts = [f"{people.prompts[row]}, {people.face_prompts[row]}" for row in rows]
    by_text = draw_pictures(bench.pipe, texts, sampling)
    from_tokens, from_text = (face_accuracies(reader, images, people, rows) for images in (by_tokens, by_text))
    return {
        "probe_expression": probe(bench.tokens, expression, np.asarray(people.identity)),
        "probe_pose": probe(bench.tokens, pose, np.asarray(people.identity)),
        "expression_by_tokens": from_tokens["expression"],
        "expression_by_text": from_text["expression"],
        "expression_kept": from_tokens["expression"] / max(from_text["expression"], 1e-9),
        "pose_by_tokens": from_tokens["pose"],
    }


@torch.no_grad()
def measure_imr(bench: AdapterBench) -> dict[str, float]:
    """Return mean squared errors of the IMR's tokens and of two baselines, averaged over people, and their ratios.

    Target landmarks are templates retargeted to the source photo, never landmarks of the target photo.
    """
    identity = np.asarray(bench.people.identity)
    errors: dict[str, list[float]] = {"error": [], "error_copying_source": [], "error_person_mean": []}
    for person in np.unique(identity)[:PEOPLE]:
        mine = np.flatnonzero(identity == person)
        sources = mine[np.unique(np.linspace(0, len(mine) - 1, SOURCES).astype(int))]
        pairs = [(source, target) for source in sources for target in mine if source != target]
        found = bench.tokens_of(
            [bench.faces[source] for source, _ in pairs], [bench.people.face_prompts[target] for _, target in pairs]
        )
        wanted = bench.tokens[[target for _, target in pairs]]
        answers = {
            "error": found,
            "error_copying_source": bench.tokens[[source for source, _ in pairs]],
            "error_person_mean": bench.tokens[mine].mean(0, keepdims=True),
        }
        for name, answer in answers.items():
            errors[name].append(float(np.square(answer - wanted).mean()))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    return {
        **means,
        "of_copying_source": means["error"] / means["error_copying_source"],
        "of_person_mean": means["error"] / means["error_person_mean"],
    }

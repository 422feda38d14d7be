"""CLIP, trained on photographs with what preprocessing has found in them.

A few thousand photographs with a dozen texts teach a contrastive loss little about faces, and the states of the image
encoder have to tell the face encoder more than the texts name. So linear heads, discarded afterwards, have to read from
these states what preprocessing measured: the recogniser's embedding, 68 landmarks, pose, and expression where known.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.foundation.clip import RATE, WIDTH, contrastive, normalise
from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.network.templates import mirror

if TYPE_CHECKING:
    from model.foundation.photographs import PhotographData

_EMBEDDING, _POINTS = 512, 68
_LABEL_WEIGHT, _EMBEDDING_WEIGHT, _LANDMARK_WEIGHT = 0.5, 1.0, 10.0
_MEASURED = 700


class Heads(nn.Module):
    """Linear readers of the states, for training only."""

    def __init__(self) -> None:
        super().__init__()
        classes = {"expression": len(EXPRESSIONS), "pose": len(POSES)}
        self.text = nn.ModuleDict({name: nn.Linear(WIDTH, count) for name, count in classes.items()})
        self.crop = nn.ModuleDict({name: nn.Linear(WIDTH, count) for name, count in classes.items()})
        self.embedding = nn.Linear(WIDTH, _EMBEDDING)
        self.landmarks = nn.Linear(WIDTH, 2 * _POINTS)


def train(clip: Any, tokenizer: Any, data: PhotographData, edition: Edition, legs: Legs) -> None:
    """Train CLIP on whole photographs with prompts and face prompts, and on face crops with face prompts."""
    spec, device = edition.clip, training_device()
    torch.manual_seed(spec.seed)
    heads = Heads()
    both = nn.ModuleDict({"clip": clip, "heads": heads}).to(device)
    # The landmarks of faces in the crop frame differ little: their mean is no task.
    mean = data.faces.landmarks(np.arange(min(len(data.photos), 2000))).mean(0)
    mean = (mean + mirror(mean)) / 2

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        one, two = (np.sort(rng.choice(len(data.photos), spec.batch)) for _ in range(2))
        rows, flipped = np.concatenate([one, two]), rng.random(2 * spec.batch) < 0.5
        crops = np.arange(2 * spec.batch) >= spec.batch
        shown = data.pixels[rows][np.arange(len(rows)), crops.astype(int)]
        shown[flipped] = shown[flipped][:, :, ::-1]
        faces = [data.face_prompt(row, mirror) for row, mirror in zip(rows.tolist(), flipped.tolist(), strict=True)]
        texts = [
            ", ".join(filter(None, (data.prompt(row), face))) for row, face in zip(one.tolist(), faces, strict=False)
        ]
        texts += faces[spec.batch :]
        seen = clip.vision_model(normalise(shown).to(device), output_hidden_states=True)
        features = clip.visual_projection(seen.pooler_output)
        read = clip.text_model(**tokenizer(texts, padding=True, return_tensors="pt").to(device)).pooler_output
        written = clip.text_projection(read)
        scale = clip.logit_scale.exp().clamp(max=50)
        parts = (slice(0, spec.batch), slice(spec.batch, None))
        loss = sum(contrastive(features[part], written[part], texts[part], scale) for part in parts)
        figures = {"contrastive": loss}
        # The face encoder reads the states before the last layer.
        inner = seen.hidden_states[-2][:, 1:].mean(1)
        pose = data.photos.pose[rows]
        labels = {
            "expression": data.photos.expression[rows].astype(np.int64),
            "pose": np.where(flipped & (pose >= 0), len(POSES) - 1 - pose, pose).astype(np.int64),
        }
        for name, values in labels.items():
            true = torch.from_numpy(values).to(device)
            loss = loss + _LABEL_WEIGHT * _known(heads.text[name](read), true)
            loss = loss + _LABEL_WEIGHT * _known(heads.crop[name](inner[parts[1]]), true[parts[1]])
        embeddings = data.faces.embeddings(two).to(device)
        cosine = F.cosine_similarity(heads.embedding(inner[parts[1]]).float(), embeddings).mean()
        points = data.faces.landmarks(two)
        points[flipped[parts[1]]] = mirror(points[flipped[parts[1]]])
        offsets = torch.from_numpy(points - mean).flatten(1).to(device)
        distance = (heads.landmarks(inner[parts[1]]).float() - offsets).abs().mean()
        loss = loss + _EMBEDDING_WEIGHT * (1 - cosine) + _LANDMARK_WEIGHT * distance
        return {"loss": loss, **figures, "embedding": cosine, "landmarks": distance}

    def leg(number: int, state: Path) -> None:
        fit(both, losses, state, name="clip", steps=legs.steps[number], rate=RATE, seed=spec.seed + number, bf16=True)

    legs.run(both, leg)
    clip.cpu().eval()


def _known(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over rows with a label; 0 where there are none."""
    return F.cross_entropy(scores.float(), labels, ignore_index=-1, reduction="sum") / max(int((labels >= 0).sum()), 1)


@torch.no_grad()
def measure(clip: Any, tokenizer: Any, data: PhotographData) -> dict[str, float | None]:
    """Return zero-shot accuracies of expression and pose on crops, where they are known, None without photographs."""
    rows = np.arange(len(data.photos))[:_MEASURED]
    prompts = [compose(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    written = F.normalize(clip.text_projection(clip.text_model(**tokens).pooler_output), dim=-1)
    right: dict[str, list[bool]] = {"expression": [], "pose": []}
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        if not len(part):
            continue
        seen = clip.visual_projection(clip.vision_model(normalise(data.pixels[part][:, 1])).pooler_output)
        best = (F.normalize(seen, dim=-1) @ written.T).argmax(1).numpy()
        for name, read in (("expression", best // len(POSES)), ("pose", best % len(POSES))):
            labels = getattr(data.photos, name)[part]
            right[name] += list((read == labels)[labels >= 0])
    # Names that no gate of the drawn networks has: what photographs allow is another matter.
    return {f"{name}_on_crops": float(np.mean(found)) if found else None for name, found in right.items()}

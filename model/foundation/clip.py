"""CLIP, trained on photos of procedural people with their prompts and on masked face crops with their face prompts.

Prompts repeat, so equal texts in a batch are positives of each other (multi-positive contrastive loss). Auxiliary
classifiers, discarded afterwards, keep expression, pose, clothes, background and identity in the states. The UNet reads
the states of the text encoder, the face encoder the penultimate ones of the image encoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_geometry import face_crop
from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.foundation.people import Array, People
from model.foundation.pictures import cached, shrunk, singles
from model.network.crop_transform import CLIP_MEAN, CLIP_STD

WIDTH = 192
RATE = 1e-3


def build(edition: Edition, tokenizer: Any) -> Any:
    """Return an untrained CLIPModel, 192 wide: 3 text layers, 4 image layers on 8 × 8 patches."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(edition.clip.seed)
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "projection_dim": WIDTH}
    return CLIPModel(
        CLIPConfig(
            text_config={
                **shared,
                "vocab_size": len(tokenizer),
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": tokenizer.model_max_length,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": edition.clip.size,
                "patch_size": edition.clip.patch,
            },
            projection_dim=WIDTH,
        )
    )


def normalise(images: Any) -> Tensor:
    """Return (B, S, S, 3) uint8 as (B, 3, S, S), normalised as by CLIP's image processor."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def crops(people: People, folder: Path, edition: Edition) -> Array:
    """Return the masked face crop of every photo, (N, S, S, 3) uint8, cached in `folder`.

    Every second crop is cut from the photo at the edition's size, at which preprocessing stores photos.
    """
    size = edition.clip.size

    def make() -> Array:
        small = singles(people, folder, edition.size)
        share = edition.size / people.photos.shape[1]
        made = [
            face_crop(np.asarray(small[i]), people.keypoints[i] * share, people.landmarks[i] * share, size)
            if i % 2
            else face_crop(np.asarray(people.photos[i]), people.keypoints[i], people.landmarks[i], size)
            for i in range(len(people.photos))
        ]
        return np.stack(made)

    return cached(folder / f"crops_{size}.npy", len(people.photos), make)


@dataclass(frozen=True)
class PromptLabels:
    """Clothes' colours and surroundings in prompts: class names, and class numbers `colour` and `setting` (N,)."""

    colours: tuple[str, ...]
    settings: tuple[str, ...]
    colour: Any
    setting: Any


def prompt_labels(prompts: tuple[str, ...]) -> PromptLabels:
    """Return the clothes' colour and the surroundings in prompts of single people."""
    clothes = [colour_of(prompt) for prompt in prompts]
    settings = [prompt.split(", ", 1)[1] for prompt in prompts]
    colour_names, setting_names = tuple(sorted(set(clothes))), tuple(sorted(set(settings)))
    return PromptLabels(
        colour_names,
        setting_names,
        np.array([colour_names.index(name) for name in clothes]),
        np.array([setting_names.index(name) for name in settings]),
    )


def colour_of(text: str) -> str:
    """Return the clothes' colour in a prompt of one person, or in what a prompt states of one."""
    return re.search(r"(?:wearing|in) an? (\w+)", text)[1]  # type: ignore[index]


class Heads(nn.Module):
    """Auxiliary linear classifiers of the states, for training only."""

    def __init__(self, identities: int, labels: PromptLabels) -> None:
        super().__init__()
        classes = {"expression": len(EXPRESSIONS), "pose": len(POSES)}
        scene = {"colour": len(labels.colours), "setting": len(labels.settings)}
        self.crop = nn.ModuleDict({n: nn.Linear(WIDTH, k) for n, k in {**classes, "identity": identities}.items()})
        self.photo = nn.ModuleDict({n: nn.Linear(WIDTH, k) for n, k in {**classes, **scene}.items()})
        self.text = nn.ModuleDict({n: nn.Linear(WIDTH, k) for n, k in {**classes, **scene}.items()})


def contrastive(pictures: Tensor, texts: Tensor, keys: list[str], scale: Tensor) -> Tensor:
    """Return the multi-positive contrastive loss of (B, d) features; rows with equal `keys` are positives."""
    logits = scale * F.normalize(pictures.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    same = torch.tensor([[a == b for b in keys] for a in keys], dtype=torch.float32, device=logits.device)
    target = same / same.sum(1, keepdim=True)
    return -0.5 * ((target * logits.log_softmax(1)).sum(1).mean() + (target * logits.T.log_softmax(1)).sum(1).mean())


def train(clip: Any, tokenizer: Any, people: People, edition: Edition, legs: Legs) -> dict[str, float]:
    """Train CLIP; return its figures on held-out people (see `measure`)."""
    from model.foundation.person_losses import PersonLosses

    spec, device = edition.clip, training_device()
    photos = shrunk(people.photos, legs.pictures / f"photos_{spec.size}.npy", spec.size / people.photos.shape[1])
    faces = crops(people, legs.pictures, edition)
    scene = prompt_labels(people.prompts)
    labels = {
        "expression": np.asarray(people.expression, np.int64),
        "pose": np.asarray(people.pose, np.int64),
        "identity": np.asarray(people.identity, np.int64),
        "colour": scene.colour,
        "setting": scene.setting,
    }
    heads = Heads(int(people.identity.max()) + 1, scene)
    several = PersonLosses(people, tokenizer, edition) if spec.groups else None
    both = nn.ModuleDict({"clip": clip, "heads": heads, **({"several": several} if several else {})}).to(device)
    rows = people.train

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        one, two = np.sort(rng.choice(rows, spec.batch)), np.sort(rng.choice(rows, spec.batch))
        texts = [f"{people.prompts[i]}, {people.face_prompts[i]}" for i in one]
        texts += [people.face_prompts[i] for i in two]
        pixels = normalise(np.concatenate([photos[one], faces[two]])).to(device)
        seen = clip.vision_model(pixels, output_hidden_states=True)
        features = clip.visual_projection(seen.pooler_output)
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        read = clip.text_model(**tokens).pooler_output
        written = clip.text_projection(read)
        scale = clip.logit_scale.exp().clamp(max=50)
        first, second = slice(0, spec.batch), slice(spec.batch, None)
        loss = contrastive(features[first], written[first], texts[first], scale)
        loss = loss + contrastive(features[second], written[second], texts[second], scale)
        # The face encoder reads the states before the last layer.
        inner = seen.hidden_states[-2][:, 1:].mean(1)
        figures = {"contrastive": loss}
        for group, states, index in (
            ("photo", seen.pooler_output[first], one),
            ("crop", inner[second], two),
            ("crop", seen.pooler_output[second], two),
            ("text", read[first], one),
        ):
            for name, head in getattr(heads, group).items():
                true = torch.from_numpy(labels[name][index]).to(device)
                loss = loss + (0.3 if name == "identity" else 0.5) * F.cross_entropy(head(states), true)
                if name == "expression" and group == "crop":
                    figures["expression"] = (head(states).argmax(1) == true).float().mean()
        if several is not None:
            more, right = several(clip, rng, scale)
            loss, figures["person"] = loss + more, right
        return {"loss": loss, **figures}

    def leg(number: int, state: Path) -> None:
        fit(both, losses, state, name="clip", steps=legs.steps[number], rate=RATE, seed=spec.seed + number, bf16=True)

    legs.run(clip, leg)
    clip.cpu().eval()
    return measure(clip, tokenizer, people, faces)


@torch.no_grad()
def measure(clip: Any, tokenizer: Any, people: People, faces: Any) -> dict[str, float]:
    """Return zero-shot accuracies of expression and pose on held-out crops, and the text cosine of happy and sad."""
    rows = people.held_out[:700]
    prompts = [compose(expression, pose) for expression in EXPRESSIONS for pose in POSES]

    def written(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        return F.normalize(clip.text_projection(clip.text_model(**tokens).pooler_output), dim=-1)

    parts = np.array_split(rows, min(12, len(rows)))
    seen = [clip.vision_model(normalise(faces[part])).pooler_output for part in parts]
    scores = F.normalize(clip.visual_projection(torch.cat(seen)), dim=-1) @ written(prompts).T
    best = scores.argmax(1).numpy()
    pooled = clip.text_model(
        **tokenizer(["happy, facing the camera", "sad, facing the camera"], padding=True, return_tensors="pt")
    )
    return {
        "zero_shot_expression": float((best // len(POSES) == people.expression[rows]).mean()),
        "zero_shot_pose": float((best % len(POSES) == people.pose[rows]).mean()),
        "happy_sad_text_cosine": float(F.cosine_similarity(*pooled.pooler_output[:, None])),
    }

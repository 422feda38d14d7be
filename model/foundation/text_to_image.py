"""Measure text to image: compare face, expression, pose, clothes and surroundings of pictures with their prompts.

Prompts come from photos of people outside the training sets, evenly over expressions and poses. Colours are read twice:
from the nearest of these photos, which needs no network, and by CLIP, whose text encoder also conditions the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from model.face.face_prompts import POSES
from model.foundation.clip import PromptLabels, normalise, prompt_labels
from model.foundation.people import Array, People
from model.foundation.readers import FaceReader, clothes_colour, nearest_class, surroundings_colour
from model.network.crop_transform import squared

BATCH = 35


@dataclass(frozen=True)
class Sampling:
    """Number of pictures, denoising steps and guidance.

    `rescale` in [0, 1]: at 1, guided predictions get the standard deviation of unguided ones; a schedule with zero
    terminal SNR needs this (Lin et al., WACV 2024).
    """

    pictures: int = 140
    steps: int = 20
    guidance: float = 3.0
    rescale: float = 0.7


def balanced_rows(people: People, count: int) -> Array:
    """Return `count` different rows of photos, spread evenly over all combinations of expression and pose."""
    motions = np.asarray(people.expression, np.int64) * len(POSES) + np.asarray(people.pose, np.int64)
    order = np.random.default_rng(0).permutation(len(motions))
    rank = np.empty(len(motions), np.int64)
    for motion in np.unique(motions):
        rows = order[motions[order] == motion]
        rank[rows] = np.arange(len(rows))
    return np.lexsort((motions, rank))[:count]


def draw_pictures(
    pipe: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    identity_tokens: Array | None = None,
    size: tuple[int, ...] | None = None,
) -> Array:
    """Return (N, H, W, 3) uint8 pictures of a Stable Diffusion pipeline; noise depends on the place in `prompts` alone.

    `identity_tokens` (N, K, D) are for a pipeline with an adapter. `size` is height and width in pixels, by default
    those that the UNet was trained for.
    """
    from tqdm import tqdm

    pipe.set_progress_bar_config(disable=True)
    factor = pipe.vae_scale_factor
    height, width = size or (pipe.unet.config.sample_size * factor,) * 2
    shape = (pipe.vae.config.latent_channels, height // factor, width // factor)
    drawn = []
    with tqdm(total=len(prompts), desc="text to image", unit="picture") as bar:
        for start in range(0, len(prompts), BATCH):
            asked = list(prompts[start : start + BATCH])
            noise = torch.stack(
                [
                    torch.randn(shape, generator=torch.Generator().manual_seed(start + number))
                    for number in range(len(asked))
                ]
            )
            arguments: dict[str, Any] = {
                "num_inference_steps": sampling.steps,
                "guidance_scale": sampling.guidance,
                "guidance_rescale": sampling.rescale,
                "output_type": "np",
                "height": height,
                "width": width,
            }
            if identity_tokens is not None:
                arguments["identity_tokens"] = torch.from_numpy(identity_tokens[start : start + BATCH])
            done = pipe(asked, latents=noise, **arguments).images
            drawn.append(np.clip(np.rint(done * 255), 0, 255).astype(np.uint8))
            bar.update(len(asked))
    return np.concatenate(drawn)


def measure(weights: Path, people: People, photos: Array, reader: FaceReader, sample: Sampling) -> dict[str, float]:
    """Generate pictures from prompts of `people` with the pipeline in `weights` and return their `score`."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(weights / "sd", local_files_only=True, dtype=torch.float32)
    rows = balanced_rows(people, sample.pictures)
    texts = [f"{people.prompts[row]}, {people.face_prompts[row]}" for row in rows]
    pictures = draw_pictures(pipe, texts, sample)
    return score(people, rows, np.asarray(photos), pictures, reader=reader, clip=ClipReader(weights))


def measure_transformer(
    weights: Path, people: People, photos: Array, reader: FaceReader, sample: Sampling
) -> dict[str, float]:
    """Return the `score` of pictures by the transformer in `weights`, without guidance rescale."""
    from model.inference.flux_pipeline import DynamicIDFluxPipeline

    pipe = DynamicIDFluxPipeline.from_pretrained(weights / "flux", dtype=torch.float32)
    rows = balanced_rows(people, sample.pictures)
    texts = [f"{people.prompts[row]}, {people.face_prompts[row]}" for row in rows]
    photos = np.asarray(photos)
    size = tuple(photos.shape[1:3])
    pictures = draw_pictures(pipe, texts, replace(sample, rescale=0.0), size=size)
    return score(people, rows, photos, pictures, reader=reader, clip=ClipReader(weights))


def score(
    people: People, rows: Array, photos: Array, pictures: Array, *, reader: FaceReader, clip: ClipReader
) -> dict[str, float]:
    """Return how often `pictures` (M, S, S, 3) show what the prompts of `rows` (M,) of `people` ask for.

    `photos` (N, S, S, 3) are those of `people` at the size of the pictures. A picture without a face counts as wrong
    expression and pose. `shirt`, `background` (one colour) and `place` (all other surroundings) are read from the
    nearest photos or, with `_by_clip`, by CLIP. Names that end in `_photos`: the same of the photos, an upper bound.
    """
    labels = prompt_labels(people.prompts)
    plain = np.array([name.endswith(" background") for name in labels.settings])
    slots = {
        "shirt": (clothes_colour, np.asarray(labels.colour)),
        "background": (surroundings_colour, np.asarray(labels.setting)),
    }
    figures: dict[str, float] = {}
    for suffix, images in (("", pictures), ("_photos", photos[rows])):
        figures |= {f"{name}{suffix}": value for name, value in face_accuracies(reader, images, people, rows).items()}
        for slot, (region, classes) in slots.items():
            known, asked = np.stack([region(image) for image in photos]), classes[rows]
            if suffix:
                near = nearest_class(known, classes, known, leave_out=True)[rows]
            else:
                near = nearest_class(known, classes, np.stack([region(image) for image in images]))
            texts = [
                [f"{text}, {people.face_prompts[row]}" for text in alternatives(people.prompts[row], labels, slot)]
                for row in rows
            ]
            for how, right in (("", near == asked), ("_by_clip", clip.best(images, texts) == asked)):
                if slot == "shirt":
                    figures[f"shirt{how}{suffix}"] = _share(right)
                else:
                    figures[f"background{how}{suffix}"] = _share(right[plain[asked]])
                    figures[f"place{how}{suffix}"] = _share(right[~plain[asked]])
    return figures


def _share(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def face_accuracies(reader: FaceReader, images: Array, people: People, rows: Array) -> dict[str, float]:
    """Return the shares of pictures with a face, and with the expression and the pose of `rows` of `people`."""
    points = reader.keypoints(list(images))
    found = np.array([row for row, five in enumerate(points) if five is not None], np.int64)
    expression, pose = np.full(len(images), -1), np.full(len(images), -1)
    if len(found):
        readings = reader.read(list(images[found]), [five for five in points if five is not None])
        expression[found], pose[found] = readings.expression, readings.pose
    return {
        "face_found": len(found) / len(images),
        "expression": float((expression == people.expression[rows]).mean()),
        "pose": float((pose == people.pose[rows]).mean()),
    }


class ClipReader:
    """Choose by the shipped CLIP the text that fits a picture best."""

    def __init__(self, weights: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        folder = weights / "clip"
        self._clip: Any = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval()
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def best(self, images: Array, texts: Sequence[Sequence[str]]) -> Array:
        """Return for each picture (S, S, 3) uint8 the index of the best fitting text in its list."""
        size = (self._clip.config.vision_config.image_size,) * 2
        small = [image if image.shape[:2] == size else cv2.resize(squared(image), size) for image in images]
        parts = [np.stack(small[start : start + 64]) for start in range(0, len(small), 64)]
        seen = torch.cat([self._clip.vision_model(normalise(part)).pooler_output for part in parts])
        answers = []
        for features, own in zip(self._clip.visual_projection(seen), texts, strict=True):
            tokens = self._tokenizer(list(own), padding=True, return_tensors="pt")
            written = F.normalize(self._clip.text_projection(self._clip.text_model(**tokens).pooler_output), dim=-1)
            answers.append(int((written @ features).argmax()))
        return np.array(answers)


def alternatives(prompt: str, labels: PromptLabels, slot: str) -> list[str]:
    """Return the prompt of one person with every possible value of `slot` ("shirt" or "background")."""
    clothes, _ = prompt.split(", ", 1)
    if slot == "background":
        return [f"{clothes}, {setting}" for setting in labels.settings]
    return [
        re.sub(r"\b(wearing|in) an? \w+", rf"\1 {'an' if colour[0] in 'aeiou' else 'a'} {colour}", prompt, count=1)
        for colour in labels.colours
    ]

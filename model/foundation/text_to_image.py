"""Does a picture drawn from text alone show what the text names: face, expression, pose, clothes, surroundings.

Prompts are those of photos of people in no training set, as many of every expression and pose. Colours are read
twice: by the nearest of those photos, which is independent of any network, and by CLIP, which the text came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from model.face.face_prompts import POSES
from model.foundation.clip import PromptLabels, normalise, prompt_labels
from model.foundation.people import People
from model.foundation.readers import FaceReader, clothes_colour, nearest_class, surroundings_colour

BATCH = 35

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sampling:
    """How many pictures are drawn, in how many steps, and how strongly the text is followed.

    `rescale` in [0, 1]: how far guided predictions are brought back to the contrast of unguided ones, which a schedule
    with zero terminal SNR asks for (Lin et al., WACV 2024).
    """

    pictures: int = 140
    steps: int = 20
    guidance: float = 3.0
    rescale: float = 0.7


def balanced_rows(people: People, count: int) -> Array:
    """Return `count` rows of photos, different ones where there are enough, as many of every look as possible."""
    looks = np.asarray(people.expression, np.int64) * len(POSES) + np.asarray(people.pose, np.int64)
    order = np.random.default_rng(0).permutation(len(looks))
    rank = np.empty(len(looks), np.int64)
    for look in np.unique(looks):
        mine = order[looks[order] == look]
        rank[mine] = np.arange(len(mine))
    return np.lexsort((looks, rank))[:count]


def draw_pictures(
    pipe: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    seed: int = 0,
    identity_tokens: Array | None = None,
) -> Array:
    """Return (N, S, S, 3) uint8 pictures of a Stable Diffusion pipeline; each starts from noise of its own number.

    `identity_tokens` (N, K, D) are for a pipeline of the method.
    """
    from tqdm import tqdm

    pipe.set_progress_bar_config(disable=True)
    side = pipe.unet.config.sample_size
    shape = (pipe.unet.config.in_channels, side, side)
    drawn = []
    with tqdm(total=len(prompts), desc="text to image", unit="picture") as bar:
        for start in range(0, len(prompts), BATCH):
            asked = list(prompts[start : start + BATCH])
            noise = torch.stack(
                [
                    torch.randn(shape, generator=torch.Generator().manual_seed(seed * 100_003 + start + number))
                    for number in range(len(asked))
                ]
            )
            arguments: dict[str, Any] = {
                "num_inference_steps": sampling.steps,
                "guidance_scale": sampling.guidance,
                "guidance_rescale": sampling.rescale,
                "output_type": "np",
            }
            if identity_tokens is not None:
                arguments["identity_tokens"] = torch.from_numpy(identity_tokens[start : start + BATCH])
            done = pipe(asked, latents=noise, **arguments).images
            drawn.append(np.clip(np.rint(done * 255), 0, 255).astype(np.uint8))
            bar.update(len(asked))
    return np.concatenate(drawn)


@dataclass(frozen=True)
class Drawing:
    """Pictures drawn from the prompts of photos: `pictures` (M, S, S, 3) belong to `rows` (M,) of `people`.

    `photos` (N, S, S, 3) are those of `people` at the size of the pictures.
    """

    people: People
    photos: Array
    rows: Array
    pictures: Array


def measure(weights: Path, people: People, photos: Array, reader: FaceReader, sample: Sampling) -> dict[str, float]:
    """Draw pictures of the prompts of `people` with the pipeline of `weights` and return what `score` reads."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(weights / "sd", local_files_only=True, dtype=torch.float32)
    rows = balanced_rows(people, sample.pictures)
    texts = [f"{people.prompts[row]}, {people.face_prompts[row]}" for row in rows]
    drawn = draw_pictures(pipe, texts, sample)
    return score(Drawing(people, np.asarray(photos), rows, drawn), reader, ClipReader(weights))


def score(drawing: Drawing, reader: FaceReader, clip: ClipReader) -> dict[str, float]:
    """Return the shares of what was asked that is read from the pictures; where no face is found, nothing is.

    `shirt`, `background` (one colour) and `place` are read by the nearest photos, with `_by_clip` by CLIP. Figures
    that end in `_photos` are the same readings of the photos themselves: what the readers reach.
    """
    people, rows, photos = drawing.people, drawing.rows, drawing.photos
    words = prompt_labels(people.prompts)
    plain = np.array([name.endswith(" background") for name in words.settings])
    slots = {
        "shirt": (clothes_colour, np.asarray(words.colour)),
        "background": (surroundings_colour, np.asarray(words.setting)),
    }
    figures: dict[str, float] = {}
    for suffix, images in (("", drawing.pictures), ("_photos", photos[rows])):
        figures |= {f"{name}{suffix}": value for name, value in faces_read(reader, images, people, rows).items()}
        for slot, (region, classes) in slots.items():
            known, asked = np.stack([region(image) for image in photos]), classes[rows]
            if suffix:
                near = nearest_class(known, classes, known, leave_out=True)[rows]
            else:
                near = nearest_class(known, classes, np.stack([region(image) for image in images]))
            texts = [
                [f"{text}, {people.face_prompts[row]}" for text in alternatives(people.prompts[row], words, slot)]
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


def faces_read(reader: FaceReader, images: Array, people: People, rows: Array) -> dict[str, float]:
    """Return the shares of pictures with a face, with the expression and with the pose of `rows` of `people`."""
    points = reader.keypoints(list(images))
    found = np.array([row for row, five in enumerate(points) if five is not None], np.int64)
    expression, pose = np.full(len(images), -1), np.full(len(images), -1)
    if len(found):
        look = reader.read(list(images[found]), [five for five in points if five is not None])
        expression[found], pose[found] = look.expression, look.pose
    return {
        "face_found": len(found) / len(images),
        "expression": float((expression == people.expression[rows]).mean()),
        "pose": float((pose == people.pose[rows]).mean()),
    }


class ClipReader:
    """The shipped CLIP, asked which of several texts fits a picture best."""

    def __init__(self, weights: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        folder = weights / "clip"
        self._clip: Any = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval()
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def best(self, images: Array, texts: Sequence[Sequence[str]]) -> Array:
        """Return for each picture (S, S, 3) uint8 the number of the one of its own texts that fits it best."""
        parts = [images[start : start + 64] for start in range(0, len(images), 64)]
        seen = torch.cat([self._clip.vision_model(normalise(part)).pooler_output for part in parts])
        answers = []
        for features, own in zip(self._clip.visual_projection(seen), texts, strict=True):
            tokens = self._tokenizer(list(own), padding=True, return_tensors="pt")
            written = F.normalize(self._clip.text_projection(self._clip.text_model(**tokens).pooler_output), dim=-1)
            answers.append(int((written @ features).argmax()))
        return np.array(answers)


def alternatives(prompt: str, words: PromptLabels, slot: str) -> list[str]:
    """Return the prompt of one person with every value of `slot` ("shirt" or "background") in its place."""
    clothes, _ = prompt.split(", ", 1)
    if slot == "background":
        return [f"{clothes}, {setting}" for setting in words.settings]
    return [
        re.sub(r"\b(wearing|in) an? \w+", rf"\1 {'an' if colour[0] in 'aeiou' else 'a'} {colour}", prompt, count=1)
        for colour in words.colours
    ]

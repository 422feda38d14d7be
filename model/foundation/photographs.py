"""A base of a folder's own photographs: CLIP and a UNet in the latents of an autoencoder that exists.

Of CLIP and the UNet, every picture they have seen is one of these photographs, all of them permitted.
People of splits val and test are not among the photographs that are trained on (`Photos` has one split).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model.face.face_geometry import face_crop
from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, POSES, compose
from model.foundation import manifest
from model.foundation.loop import Legs
from model.foundation.measure import CLIP, UNET
from model.foundation.parts import LEGS, Part, PartContext, Recipe, spec_settings, train_clip
from model.foundation.pictures import as_tensor
from model.foundation.train import scaled, train_part
from model.network.base import fingerprint, fingerprint_of_base, load_autoencoder
from model.network.latents import encode_pixels
from model.training.cache import RecordStore, store_folder
from model.training.encode import RecordEncoder, folder_digest
from model.training.photos import UNKNOWN, PhotoContent, Photos
from model.training.records import FaceRecords, Records

SUBJECT = "a photo of a person"
"""The prompt of a photograph that has none."""
_BATCH = 32
_VERSION = 1


@dataclass(frozen=True)
class PhotographData:
    """Photographs, and what is computed of each of them once, on disk.

    `latents` (2, C, h, w), scaled, of the photograph and of its mirror image; `pixels` (2, S, S, 3) uint8: the
    photograph and its face crop at the side of CLIP's pictures; `faces`: embedding, landmarks and box.
    """

    photos: Photos
    latents: Records
    pixels: Records
    faces: FaceRecords

    def face_prompt(self, row: int, mirrored: bool) -> str:
        """Return what is known of the face, nothing where expression and pose are open."""
        expression, pose = int(self.photos.expression[row]), int(self.photos.pose[row])
        side = None if pose == UNKNOWN else POSES[-1 - pose if mirrored else pose]
        return compose(None if expression == UNKNOWN else EXPRESSIONS[expression], side)

    def prompt(self, row: int) -> str:
        """Return the prompt of the photograph, or that of any."""
        return self.photos.prompts[self.photos.prompt[row]] or SUBJECT


@dataclass(frozen=True)
class PhotographContext(PartContext):
    """Also the folder of the autoencoder, and the photographs to train on and to measure with.

    `hair`: whether face crops show the hair (base.hair).
    """

    autoencoder: Path
    training: Photos
    held_out: Photos
    hair: bool = False

    @cached_property
    def vae(self) -> Any:
        """The autoencoder, frozen."""
        return load_autoencoder(self.autoencoder).eval().requires_grad_(False)

    def data(self, photos: Photos) -> PhotographData:
        """Return the data of `photos`; what is not on disk yet is computed."""
        encoder = RecordEncoder(self.work / "cache", _BATCH, None)
        size, side = self.edition.size, self.edition.clip.size

        def latents(items: list[PhotoContent]) -> np.ndarray:
            images = np.stack([_of_size(item.image, size) for item in items])
            both = as_tensor(np.concatenate([images, images[:, :, ::-1]]))
            made = encode_pixels(self.vae, both).half().numpy()
            return np.stack([made[: len(items)], made[len(items) :]], axis=1)

        def pixels(items: list[PhotoContent]) -> np.ndarray:
            rows = [
                (
                    cv2.resize(item.image, (side, side), interpolation=cv2.INTER_AREA),
                    face_crop(item.image, item.keypoints, item.landmarks, side, self.hair),
                )
                for item in items
            ]
            return np.array(rows)

        def store(kind: str, shape: tuple[int, ...], dtype: str, *parts: object) -> RecordStore:
            return RecordStore(store_folder(encoder.root, kind, _VERSION, *parts), shape, dtype)

        shape = (2, self.edition.autoencoder.latents, self.edition.latent, self.edition.latent)
        stored = store("mirrored_latents", shape, "float16", folder_digest(self.autoencoder), size)
        with torch.no_grad():
            found = encoder.fill(stored, photos.keys, photos.content, latents, "latents")
        stored = store("pixels", (2, side, side, 3), "uint8", side, *(("hair",) if self.hair else ()))
        shown = encoder.fill(stored, photos.keys, photos.content, pixels, "pictures")
        faces = encoder.faces(photos)
        faces.records.complete()
        return PhotographData(photos, found, shown, faces)


def _of_size(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise ValueError(
            f"a photo of {width}x{height} pixels, base.resolution is {size}: set preprocess.resolution to the same and "
            "run preprocess again"
        )
    return image


def _clip(context: PhotographContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from model.foundation import photograph_clip

    data = context.data(context.training)

    def train(network: Any, tokenizer: Any, legs: Legs) -> dict[str, Any]:
        photograph_clip.train(network, tokenizer, data, context.edition, legs)
        return photograph_clip.measure(network, tokenizer, context.data(context.held_out))

    return train_clip(context, name, recipe, _texts(data), train)


def _texts(data: PhotographData) -> list[str]:
    """Return texts from which the tokenizer learns its symbols: all face prompts, and prompts of photographs."""
    faces = [f"{SUBJECT}, {word}, {phrase}" for word in EXPRESSIONS for phrase in POSE_PHRASES.values()]
    return [*faces, *list(data.photos.prompts)[:4000]]


def _unet(context: PhotographContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPModel, CLIPTokenizer

    from model.foundation import photograph_unet, unet
    from model.foundation.assemble import save_pipeline, text_encoder_of

    clip = CLIPModel.from_pretrained(context.weights / "clip", local_files_only=True).float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(context.weights / "clip", local_files_only=True)
    text = text_encoder_of(clip)
    network = unet.build(context.edition, text.config.hidden_size)

    def save() -> None:
        vae, encoder, copied = copy.deepcopy((context.vae, text, network))
        save_pipeline(vae, encoder, tokenizer, copied, context.weights)

    def load() -> None:
        found = UNet2DConditionModel.from_pretrained(context.weights / "sd" / "unet", local_files_only=True).float()
        network.load_state_dict(found.state_dict())

    data = context.data(context.training)
    states = unet.TextStates(text, tokenizer)
    legs: Legs = context.legs(name, recipe, save, load)
    photograph_unet.train(network, data, context.edition, legs, states)
    save()
    errors = {
        "error": photograph_unet.error(network, data, states),
        "held_out_error": photograph_unet.error(network, context.data(context.held_out), states),
    }
    return {"parameters": sum(value.numel() for value in network.parameters()), **errors}


RECIPE: tuple[Part, ...] = (
    Part("clip", _clip, spec_settings("clip", LEGS), (CLIP, "image_encoder/model.safetensors")),
    Part("unet", _unet, spec_settings("unet", LEGS), (UNET, "sd/text_encoder/model.safetensors"), (CLIP,)),
)


def train_photographs(
    context: PhotographContext, origin: dict[str, Any], *, parts: Sequence[str] | None = None, steps_scale: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Train the unfinished parts, from their last checkpoints; write the manifest and return the figures by part.

    `origin` (JSON) states what the photographs are, and which networks have analysed them; the manifest keeps it, with
    hashes of the photographs, of the autoencoder and of the written base. Raises ValueError for photographs of another
    size, none at all, or a training begun with others; FloatingPointError where a loss is NaN or infinite.
    """
    if not len(context.training):
        raise ValueError("no usable photo in split train: nothing to train on")
    photos = {"train": context.training.digest(), "val": context.held_out.digest()}
    known = {"photos": photos, "autoencoder": fingerprint(context.autoencoder)}
    recipes, figures = {}, {}
    for part in RECIPE:
        settings = {**scaled(part.settings(context.edition), steps_scale), "size": context.edition.size}
        settings |= {"hair": True} if context.hair else {}
        inputs = {**photos, "autoencoder": known["autoencoder"]}
        for name in part.needs:
            if not (context.weights / name).is_file():
                raise ValueError(f"{context.weights}/{name}: missing; train clip first")
            inputs[name] = manifest.digest(context.weights / name)
        if parts is None or part.name in parts:
            figures[part.name] = train_part(part, context, {"settings": settings, "inputs": inputs})
            recipes[part.name] = settings
    if len(figures) == len(RECIPE):
        made = fingerprint_of_base(context.weights / "sd", context.weights / "image_encoder")
        manifest.write(context.weights, recipes, figures, origin={**origin, **known, "fingerprint": made})
    return figures

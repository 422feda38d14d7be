"""The frozen base models' outputs for photos and prompts: what they are, and in which form they are kept."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.face.face_geometry import crop_landmarks, face_crop
from model.face.face_parts import PARTS, part_pictures
from model.network.base import Base, digest_of_files
from model.training.alignment import alignment, normalised_keypoints
from model.training.cache import RecordStore, fill, require_space, store_folder, text_keys
from model.training.photos import PhotoContent, Photos
from model.training.records import EMBEDDING, POINTS, FaceRecords, Records, Source, TextRecords

# Increase these when the content of a record, or its computation, changes.
_VERSION = 1
_FACES_VERSION = 2
# What is kept of each kind where nothing else is chosen, and of a kind that is computed whenever it is drawn.
FORMATS: dict[str, str] = {
    "latents": "float16",
    "clip": "float16",
    "parts": "float16",
    "text": "float16",
    "identity_tokens": "float32",
}
NONE = "none"
_FOLDERS = {"clip": "clip_states", "parts": "part_states", "text": "text_states"}


@cache
def folder_digest(folder: Path) -> str:
    """Return the sha256 (hex) over names and bytes of all files in a model folder, read once per process."""
    return digest_of_files(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def base_digest(base: Base) -> str:
    """Return one sha256 (hex) over the files of the base models, and over what their crops show."""
    shown = "hair" if base.hair else ""
    return hashlib.sha256(
        (folder_digest(base.pipeline_folder) + folder_digest(base.image_encoder_folder) + shown).encode()
    ).hexdigest()


@dataclass(frozen=True)
class RecordEncoder:
    """Encode photos and prompts, `batch` at a time, on the processes of `accelerator`; keep the records under `root`.

    `formats`: what is kept of each kind, where it is not what FORMATS says. As a context, it appends to the stores what
    was computed last.
    """

    root: Path
    batch: int
    accelerator: Any
    formats: Mapping[str, str] = field(default_factory=dict)
    _records: list[Records] = field(default_factory=list)
    _planned: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> RecordEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        for records in self._records:
            records.flush()

    def format_of(self, kind: str) -> str:
        """Return what is kept of a kind."""
        return self.formats.get(kind, FORMATS[kind])

    def fill(
        self, store: RecordStore, keys: np.ndarray, content: Callable[..., Any], encode: Callable[..., Any], label: str
    ) -> Records:
        """Compute the missing records of `keys` at once and return all of them (see `cache.fill`)."""
        fill(store, keys, content, encode, batch=self.batch, label=label, accelerator=self.accelerator)
        return Records(label, keys, Source(content, encode, self.batch), store.shape, store)

    def records(
        self, kind: str, parts: Sequence[object], keys: np.ndarray, shape: tuple[int, ...], source: Source
    ) -> Records:
        """Return records of a `kind` (of FORMATS) that are computed when they are drawn.

        `parts`: what they depend on beside `keys`. What was the format of all earlier versions is not in the name of
        its folder, so that their records stay.
        """
        chosen, store = self.format_of(kind), None
        if chosen != NONE:
            others = () if chosen == FORMATS[kind] else (chosen,)
            folder = store_folder(self.root, _FOLDERS.get(kind, kind), _VERSION, *parts, *others)
            store = RecordStore(folder, shape, chosen)
        return self._remembered(Records(kind, keys, source, shape, store))

    def _remembered(self, records: Records) -> Records:
        self._records.append(records)
        return records

    def require_space(self, *needed: Records) -> None:
        """Print what has to be computed; raise ValueError, naming it, unless it fits on the disk with all before it."""
        for records in needed:
            if not records.missing:
                continue
            size = 0 if records.store is None else records.missing * records.store.record_bytes
            self._planned[records.name] = self._planned.get(records.name, 0) + size
            if self.accelerator is None or self.accelerator.is_main_process:
                kept = "nothing is kept" if records.store is None else f"{size / 1e9:.2f} GB"
                text = f"{records.missing} of {len(records)} are computed when they are drawn, {kept}"
                print(f"{records.name}: {text}", file=sys.stderr)
        self.root.mkdir(parents=True, exist_ok=True)
        require_space(self.root, self._planned, ", or keep less (`caches` in the parameters)")

    def latents(self, base: Base, photos: Photos, resolution: int) -> Records:
        """Return scaled latents (C, h, w), modes of the posterior; raise ValueError if a photo has another size."""

        def encode(items: list[PhotoContent]) -> Tensor:
            for item in items:
                _check_size(item, resolution)
            return base.encode_images(np.stack([item.image for item in items])).float().cpu()

        side = resolution // 2 ** (len(base.vae.config.block_out_channels) - 1)
        shape = (int(base.vae.config.latent_channels), side, side)
        parts = folder_digest(base.pipeline_folder / "vae"), resolution, base.vae.dtype
        found = self.records("latents", parts, photos.keys, shape, self._source(photos.content, encode, "vae"))
        if found.missing:
            # One by one, they are checked when they are drawn.
            _check_size(next(iter(photos.content(np.zeros(1, np.int64)))), resolution)
        return found

    def clip_states(self, base: Base, photos: Photos) -> Records:
        """Return penultimate CLIP states (T, W) of the photos' face crops, without background and clothes."""

        def encode(items: list[PhotoContent]) -> Tensor:
            return base.encode_crops(np.stack([_crop(item, base) for item in items])).float().cpu()

        return self._image_states("clip", base, photos, (), encode)

    def part_states(self, base: Base, photos: Photos) -> Records:
        """Return penultimate CLIP states (R, T, W) of the photos' face crops with all but one of PARTS black."""

        def encode(items: list[PhotoContent]) -> Tensor:
            pictures = [
                part_pictures(_crop(item, base), crop_landmarks(item.landmarks, item.keypoints)) for item in items
            ]
            return base.encode_crops(np.concatenate(pictures)).float().cpu().unflatten(0, (len(items), len(PARTS)))

        return self._image_states("parts", base, photos, (len(PARTS),), encode)

    def _image_states(
        self, kind: str, base: Base, photos: Photos, before: tuple[int, ...], encode: Callable[..., Tensor]
    ) -> Records:
        config = base.image_encoder.config
        shape = (*before, (config.image_size // config.patch_size) ** 2 + 1, int(config.hidden_size))
        parts = folder_digest(base.image_encoder_folder), base.crop_size, base.dtype, *(("hair",) if base.hair else ())
        return self.records(kind, parts, photos.keys, shape, self._source(photos.content, encode, "image_encoder"))

    def faces(self, photos: Photos) -> FaceRecords:
        """Return embeddings, landmarks in the crop frame, face boxes and alignments of the photos, in float32."""

        def encode(items: list[PhotoContent]) -> np.ndarray:
            rows = []
            for item in items:
                height, width = item.image.shape[:2]
                box = item.bbox / np.array([width, height, width, height], np.float32)
                points = crop_landmarks(item.landmarks, item.keypoints)
                matrix = alignment(normalised_keypoints(item.keypoints, height, width))
                rows.append(np.concatenate([item.embedding, points.reshape(-1), box, matrix.reshape(-1)]))
            return np.stack(rows)

        shape = (EMBEDDING + 2 * POINTS + 4 + 6,)
        store = RecordStore(store_folder(self.root, "faces", _FACES_VERSION), shape, "float32")
        source = Source(photos.content, encode, self.batch)
        return FaceRecords(self._remembered(Records("faces", photos.keys, source, shape, store)))

    def landmarks(self, photos: Photos) -> Records:
        """Return the landmarks (68, 2) of the photos in 0 … 1 of their sides, in float32."""

        def encode(items: list[PhotoContent]) -> np.ndarray:
            sides = np.array([item.image.shape[1::-1] for item in items], np.float32)
            return np.stack([item.landmarks for item in items]) / sides[:, None]

        store = RecordStore(store_folder(self.root, "landmarks", _VERSION), (POINTS, 2), "float32")
        return self._remembered(
            Records("landmarks", photos.keys, Source(photos.content, encode, self.batch), store.shape, store)
        )

    def texts(self, base: Base, prompts: Sequence[str]) -> TextRecords:
        """Return states (77, D) and pooled texts of distinct prompts, as the base takes them."""
        parts = [folder_digest(base.pipeline_folder / name) for name in base.text_networks]
        shape, pooled = base.text_shape, base.pooled_width

        def encode(texts: list[str]) -> Tensor:
            found = base.text_states(texts).to("cpu", torch.float32)
            return torch.cat([found.states.flatten(1), found.pooled], dim=1) if pooled else found.states

        kept = (math.prod(shape) + pooled,) if pooled else shape
        others = ("zeros for the empty text",) if base.zero_empty_text else ()
        source = self._source(lambda rows: (prompts[row] for row in rows), encode, "text_encoder", "text_encoder_2")
        return TextRecords(self.records("text", (*parts, base.dtype, *others), text_keys(prompts), kept, source), shape)

    def _source(self, content: Callable[..., Any], encode: Callable[..., Tensor], *networks: str) -> Source:
        return Source(content, lambda items: encode(items).numpy(), self.batch, networks)


def _crop(item: PhotoContent, base: Base) -> np.ndarray:
    """Return the aligned face that the image encoder sees, (S, S, 3) uint8 RGB."""
    return face_crop(item.image, item.keypoints, item.landmarks, base.crop_size, base.hair)


def _check_size(photo: PhotoContent, resolution: int) -> None:
    if photo.image.shape != (resolution, resolution, 3):
        height, width = photo.image.shape[:2]
        raise ValueError(
            f"a photo of {width}x{height} pixels, base.resolution is {resolution}: set preprocess.resolution to the "
            "same and run preprocess again"
        )

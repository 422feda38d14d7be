"""Compute the frozen base models' outputs for photos and prompts once, and store them in half precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.face.face_geometry import crop_landmarks, face_crop
from model.network.base import Base, digest_of_files
from model.training.alignment import alignment, normalised_keypoints
from model.training.cache import RecordStore, fill, store_folder, text_keys
from model.training.photos import PhotoContent, Photos

# Increase these when the content of a record, or its computation, changes.
_VERSION = 1
_FACES_VERSION = 2
_EMBEDDING, _POINTS = 512, 68


@dataclass(frozen=True)
class Records:
    """A store, and `rows`, the record number of each photo or prompt."""

    store: RecordStore
    rows: np.ndarray

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """Return the records at `positions`, as stored."""
        return self.store[self.rows[positions]]

    def tensor(self, positions: np.ndarray) -> Tensor:
        """Return the records at `positions` as a float32 tensor on the host."""
        return torch.from_numpy(self[positions].astype(np.float32))


@dataclass(frozen=True)
class FaceRecords:
    """Embedding and face geometry of photos, one record each."""

    records: Records

    def embeddings(self, positions: np.ndarray) -> Tensor:
        """Return (B, 512) float32, unit norm."""
        return self.records.tensor(positions)[:, :_EMBEDDING]

    def landmarks(self, positions: np.ndarray) -> np.ndarray:
        """Return (B, 68, 2) float32 in the unit crop frame."""
        return self.records[positions][:, _EMBEDDING : _EMBEDDING + 2 * _POINTS].reshape(-1, _POINTS, 2)

    def boxes(self, positions: np.ndarray) -> Tensor:
        """Return face boxes (B, 4): x0 y0 x1 y1 in 0 … 1 of the photo."""
        return self.records.tensor(positions)[:, _EMBEDDING + 2 * _POINTS :][:, :4]

    def alignments(self, positions: np.ndarray) -> Tensor:
        """Return the matrices (B, 2, 3) that map the aligned faces to the photos (see `alignment`)."""
        return self.records.tensor(positions)[:, _EMBEDDING + 2 * _POINTS + 4 :].reshape(-1, 2, 3)


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
    """Encode photos and prompts into stores under `root`, `batch` at a time, on the processes of `accelerator`."""

    root: Path
    batch: int
    accelerator: Any

    def fill(
        self, store: RecordStore, keys: np.ndarray, content: Callable[..., Any], encode: Callable[..., Any], label: str
    ) -> Records:
        """Compute the missing records of `keys` and return all of them (see `cache.fill`)."""
        rows = fill(store, keys, content, encode, batch=self.batch, label=label, accelerator=self.accelerator)
        return Records(store, rows)

    def latents(self, base: Base, photos: Photos, resolution: int) -> Records:
        """Return scaled latents (C, h, w), modes of the posterior; raise ValueError if a photo has another size."""

        def encode(items: list[PhotoContent]) -> np.ndarray:
            for item in items:
                if item.image.shape != (resolution, resolution, 3):
                    height, width = item.image.shape[:2]
                    raise ValueError(
                        f"a photo of {width}x{height} pixels, base.resolution is {resolution}: set "
                        "preprocess.resolution to the same and run preprocess again"
                    )
            return _half(base.encode_images(np.stack([item.image for item in items])))

        side = resolution // 2 ** (len(base.vae.config.block_out_channels) - 1)
        shape = (int(base.vae.config.latent_channels), side, side)
        parts = folder_digest(base.pipeline_folder / "vae"), resolution, base.dtype
        store = RecordStore(store_folder(self.root, "latents", _VERSION, *parts), shape)
        return self.fill(store, photos.keys, photos.content, encode, "latents")

    def clip_states(self, base: Base, photos: Photos) -> Records:
        """Return penultimate CLIP states (T, W) of the photos' face crops, without background and clothes."""
        size = base.crop_size

        def encode(items: list[PhotoContent]) -> np.ndarray:
            crops = [face_crop(item.image, item.keypoints, item.landmarks, size, base.hair) for item in items]
            return _half(base.encode_crops(np.stack(crops)))

        config = base.image_encoder.config
        shape = ((config.image_size // config.patch_size) ** 2 + 1, int(config.hidden_size))
        parts = folder_digest(base.image_encoder_folder), size, base.dtype, *(("hair",) if base.hair else ())
        store = RecordStore(store_folder(self.root, "clip_states", _VERSION, *parts), shape)
        return self.fill(store, photos.keys, photos.content, encode, "face crops")

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

        store = RecordStore(
            store_folder(self.root, "faces", _FACES_VERSION), (_EMBEDDING + 2 * _POINTS + 4 + 6,), "float32"
        )
        return FaceRecords(self.fill(store, photos.keys, photos.content, encode, "faces"))

    def texts(self, base: Base, prompts: Sequence[str]) -> Records:
        """Return text states (77, D) of distinct prompts."""
        parts = [folder_digest(base.pipeline_folder / name) for name in ("text_encoder", "tokenizer")]
        shape = (int(base.tokenizer.model_max_length), int(base.text_encoder.config.hidden_size))
        store = RecordStore(store_folder(self.root, "text_states", _VERSION, *parts, base.dtype), shape)

        def encode(texts: list[str]) -> np.ndarray:
            return _half(base.encode_text(texts)[0])

        return self.fill(store, text_keys(prompts), lambda rows: (prompts[row] for row in rows), encode, "prompts")


def _half(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy().astype(np.float16)

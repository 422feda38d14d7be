"""Measures the networks of a folder of weights on people that no training has seen, from the files as they ship."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.foundation import clip, detector, expression_pose, text_to_image, vae
from model.foundation.face_networks import FILES
from model.foundation.identity_gates import ADAPTER, AdapterBench, measure_imr, measure_tokens
from model.foundation.people import Draw, People, render_people
from model.foundation.pictures import as_tensor, shrunk
from model.foundation.readers import FaceReader, OnnxNetwork
from model.foundation.text_to_image import Sampling

Array = npt.NDArray[Any]

CLIP = "clip/model.safetensors"
VAE = "sd/vae/diffusion_pytorch_model.safetensors"
UNET = "sd/unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Sample:
    """What is measured on: people of a seed of their own, and how many pictures are drawn from their prompts."""

    people: int = 40
    photos: int = 14
    size: int = 128
    groups: float = 0.2
    seed: int = 1
    drawn: Sampling = field(default_factory=Sampling)


class UnseenPeople(People):
    """People of whom nobody was trained on."""

    @cached_property
    def first_held_out(self) -> int:
        """Everybody is held out."""
        return 0


def unseen_folder(work: Path, sample: Sample) -> Path:
    """Return where under `work` the people of `sample` are kept."""
    return work / f"strangers_{sample.people}x{sample.photos}_{sample.size}_{sample.seed}"


def unseen_people(folder: Path, draw: Draw, sample: Sample, *, workers: int = 1) -> UnseenPeople:
    """Draw the people of `sample` into `folder`, or open them where they lie there already.

    Their seed is not that of the training set, so they are other people, whatever their numbers.
    """
    drawn = render_people(
        folder,
        draw,
        people=sample.people,
        photos=sample.photos,
        size=sample.size,
        seed=sample.seed,
        workers=workers,
        groups=sample.groups,
    )
    return UnseenPeople(**vars(drawn))


@dataclass
class _Bench:
    """What the measurements share; what is slow to make is made when first asked for."""

    weights: Path
    folder: Path
    draw: Draw
    sample: Sample
    workers: int
    adapter: Path

    @cached_property
    def people(self) -> UnseenPeople:
        return unseen_people(self.folder, self.draw, self.sample, workers=self.workers)

    @property
    def pictures(self) -> Path:
        """Where smaller copies of the photos are kept."""
        return self.folder / "pictures"

    @cached_property
    def photos(self) -> Array:
        return shrunk(self.people, self.pictures, vae.SIZE)[0]

    @cached_property
    def reader(self) -> FaceReader:
        return FaceReader(self.weights)

    @cached_property
    def identities(self) -> AdapterBench:
        return AdapterBench(self.weights, self.adapter, self.people, self.photos)


def measure_foundation(
    weights: Path,
    work: Path,
    draw: Draw,
    sample: Sample,
    *,
    parts: Sequence[str] | None = None,
    adapter: Path | None = None,
    workers: int = 1,
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Return the figures of `parts` (all by default) whose files are there, and the missing files of the others.

    Both are keyed by part; see `gates.GATES` for what the figures must reach. The people measured on are drawn into
    `work` once. `adapter` is the folder whose identity tokens and IMR are measured, the shipped one by default. Raises
    ValueError for an unknown part, and for an adapter that was trained on another base.
    """
    from tqdm import tqdm

    unknown = sorted(set(parts or ()) - set(_MEASURES))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no part of the foundation; expected some of {', '.join(_MEASURES)}")
    adapter = weights / "adapter" if adapter is None else adapter
    bench = _Bench(weights, unseen_folder(work, sample), draw, sample, workers, adapter)
    figures: dict[str, dict[str, Any]] = {}
    missing: dict[str, list[str]] = {}
    with tqdm([name for name in _MEASURES if parts is None or name in parts], desc="measuring", unit="part") as bar:
        for part in bar:
            bar.set_postfix_str(part)
            needs, measure = _MEASURES[part]
            places = {ADAPTER: adapter / "adapter.safetensors"}
            absent = [name for name in needs if not places.get(name, weights / name).is_file()]
            if absent:
                missing[part] = absent
            else:
                figures[part] = {name: _rounded(value) for name, value in measure(bench).items()}
    return figures, missing


def _rounded(value: Any) -> Any:
    """Four digits: what is beyond them differs between machines. None for what could not be measured."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 4)


def _people(bench: _Bench) -> dict[str, Any]:
    read = expression_pose.measure(OnnxNetwork(bench.weights / FILES["expression_pose"]), bench.people)
    return {"expression": read["expression_128"], "pose": read["pose_128"]}


def _face_network(name: str) -> Callable[[_Bench], dict[str, Any]]:
    def measure(bench: _Bench) -> dict[str, Any]:
        module = importlib.import_module(f"model.foundation.{name}")
        figures: dict[str, Any] = module.measure(OnnxNetwork(bench.weights / FILES[name]), bench.people)
        return figures

    return measure


def _detector(bench: _Bench) -> dict[str, Any]:
    figures = detector.measure(bench.weights / FILES["detector"], bench.people)
    return {name: value for name, value in figures.items() if not name.startswith("milliseconds")}


@torch.no_grad()
def _autoencoder(bench: _Bench) -> dict[str, Any]:
    """Reconstructions against originals at the same size: what the judge reads, and whether it is the same person."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(bench.weights / "sd" / "vae", local_files_only=True).float().eval()
    photos = np.asarray(bench.photos)
    rebuilt = []
    for start in range(0, len(photos), 64):
        found = model.decode(model.encode(as_tensor(photos[start : start + 64])).latent_dist.mode()).sample
        rebuilt.append(((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    pictures = np.concatenate(rebuilt)
    points = list(np.asarray(bench.people.keypoints) * (photos.shape[1] / bench.people.photos.shape[1]))
    before, after = bench.reader.read(list(photos), points), bench.reader.read(list(pictures), points)
    expression, pose = np.asarray(bench.people.expression), np.asarray(bench.people.pose)
    original = float((before.expression == expression).mean())
    error = float(np.square((pictures.astype(np.float32) - photos) / 255).mean())
    return {
        "expression_original": original,
        "expression_rebuilt": float((after.expression == expression).mean()),
        "expression_kept": float((after.expression == expression).mean()) / max(original, 1e-9),
        "pose_rebuilt": float((after.pose == pose).mean()),
        "identity_cosine": float((before.identity * after.identity).sum(1).mean()),
        "psnr": float(-10 * np.log10(max(error, 1e-12))),
    }


def _clip(bench: _Bench) -> dict[str, Any]:
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(bench.weights / "clip", local_files_only=True).float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(bench.weights / "clip", local_files_only=True)
    faces = clip.crops(bench.people, bench.pictures)
    return clip.measure(model, tokenizer, bench.people, bench.photos, faces)


_FACES = ("landmarks", "recogniser", "judge", "expression_pose")
_MEASURES: dict[str, tuple[tuple[str, ...], Callable[[_Bench], dict[str, Any]]]] = {
    "people": ((FILES["expression_pose"],), _people),
    **{name: ((FILES[name],), _face_network(name)) for name in _FACES},
    "detector": ((FILES["detector"],), _detector),
    "autoencoder": ((VAE, *FaceReader.NEEDS), _autoencoder),
    "clip": ((CLIP,), _clip),
    "unet": (
        (UNET, VAE, CLIP, *FaceReader.NEEDS),
        lambda bench: text_to_image.measure(
            bench.weights, bench.people, bench.photos, bench.reader, bench.sample.drawn
        ),
    ),
    "identity_tokens": (
        (ADAPTER, UNET, VAE, CLIP, FILES["recogniser"], *FaceReader.NEEDS),
        lambda at: measure_tokens(at.identities, at.reader, at.sample.drawn),
    ),
    "imr": ((ADAPTER, UNET, FILES["recogniser"]), lambda at: measure_imr(at.identities)),
}

"""Measure the shipped network files on people outside the training sets."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.foundation import clip, detector, expression_pose, text_to_image, vae
from model.foundation.face_networks import FILES
from model.foundation.identity_gates import ADAPTER, AdapterBench, measure_imr, measure_tokens
from model.foundation.people import Array, Draw, People, render_people
from model.foundation.pictures import as_tensor, shrunk
from model.foundation.readers import FaceReader, OnnxNetwork
from model.foundation.text_to_image import Sampling

CLIP = "clip/model.safetensors"
VAE = "sd/vae/diffusion_pytorch_model.safetensors"
UNET = "sd/unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Sample:
    """The people to measure on, whose seed differs from the training set's, and the sampling of pictures from text."""

    people: int = 40
    photos: int = 14
    size: int = 128
    groups: float = 0.2
    seed: int = 1
    drawn: Sampling = field(default_factory=Sampling)


class UnseenPeople(People):
    """People who are all held out."""

    @cached_property
    def first_held_out(self) -> int:
        """The number of the first held-out person."""
        return 0


def unseen_people(folder: Path, draw: Draw, sample: Sample, *, workers: int = 1) -> UnseenPeople:
    """Draw the people of `sample` into `folder` if they are not there yet, and open them.

    Their seed differs from the training set's, so they are different people even where numbers are the same.
    """
    settings = {name: getattr(sample, name) for name in ("people", "photos", "size", "groups", "seed")}
    return UnseenPeople(**vars(render_people(folder, draw, workers=workers, **settings)))


@dataclass
class _Bench:
    """Shared data of the measurements, computed on first use."""

    weights: Path
    folder: Path
    draw: Draw
    sample: Sample
    workers: int
    adapter: Path

    @cached_property
    def people(self) -> UnseenPeople:
        return unseen_people(self.folder, self.draw, self.sample, workers=self.workers)

    @cached_property
    def photos(self) -> Array:
        return shrunk(self.people, self.folder / "pictures", vae.SIZE)[0]

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
    """Return the figures of `parts` (all by default) that have their files, and the missing files of the others.

    Both are keyed by part; `gates.GATES` has the bounds. The people to measure on are drawn into `work` once. `adapter`
    is an adapter folder, by default the shipped one. Raises ValueError for an unknown part and for an adapter of
    another base.
    """
    from tqdm import tqdm

    chosen = chosen_parts(parts, _MEASURES)
    adapter = weights / "adapter" if adapter is None else adapter
    folder = work / f"strangers_{sample.people}x{sample.photos}_{sample.size}_{sample.seed}"
    bench = _Bench(weights, folder, draw, sample, workers, adapter)
    figures: dict[str, dict[str, Any]] = {}
    missing: dict[str, list[str]] = {}
    with tqdm(chosen, desc="measuring", unit="part") as bar:
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


def chosen_parts(parts: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """Return `parts` (all `known` ones if None) in the order of `known`; raise ValueError for an unknown part."""
    unknown = sorted(set(parts or ()) - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no part of the foundation; expected some of {', '.join(known)}")
    return [name for name in known if parts is None or name in parts]


def _rounded(value: Any) -> Any:
    """Return `value` to four decimals, since further ones differ between machines; None for None, NaN or infinity."""
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


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
    """Compare reconstructions with originals of the same size: the judges' readings and the pixels."""
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
    faces = clip.crops(bench.people, bench.folder / "pictures")
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

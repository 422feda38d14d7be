"""Measure the shipped network files on people outside the training sets."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.foundation import clip, detector, expression_pose, manifest, reconstruction, several_people, text_to_image
from model.foundation.edition import EDITIONS, SHIPPED, Edition, GroupShape
from model.foundation.face_networks import FILES
from model.foundation.identity_gates import ADAPTER, AdapterBench, measure_imr, measure_tokens
from model.foundation.people import Array, Draw, People
from model.foundation.pictures import singles
from model.foundation.readers import FaceReader, OnnxNetwork
from model.foundation.render import render_people
from model.foundation.text_to_image import Sampling

CLIP = "clip/model.safetensors"
VAE = "sd/vae/diffusion_pytorch_model.safetensors"
UNET = "sd/unet/diffusion_pytorch_model.safetensors"
TRANSFORMER = "flux/transformer/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Sample:
    """The people to measure on, whose seed differs from the training set's, and the sampling of pictures from text."""

    people: int = 40
    photos: int = 14
    size: int = 128
    groups: float = 0.2
    shapes: tuple[GroupShape, ...] = ()
    seed: int = 1
    drawn: Sampling = field(default_factory=Sampling)


def sample_of(edition: Edition, drawn: Sampling | None = None) -> Sample:
    """Return the people to measure an edition on: 160 pictures of several people of each of its shapes."""
    shapes = tuple(replace(shape, pictures=160) for shape in edition.people.shapes)
    return Sample(shapes=shapes, drawn=drawn or Sampling())


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
    settings = {name: getattr(sample, name) for name in ("people", "photos", "size", "groups", "shapes", "seed")}
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
    edition: Edition

    def file(self, name: str) -> Path:
        """The file of a network: of the weights, else, of an edition that is not the shipped one, the shipped file."""
        own = self.weights / name
        inherited = self.edition.number != SHIPPED and name in FILES.values() and not own.is_file()
        return manifest.WEIGHTS / name if inherited else own

    @cached_property
    def people(self) -> UnseenPeople:
        return unseen_people(self.folder, self.draw, self.sample, workers=self.workers)

    @cached_property
    def photos(self) -> Array:
        return singles(self.people, self.folder / "pictures", self.edition.size)

    @cached_property
    def reader(self) -> FaceReader:
        return FaceReader(self.file)

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
    edition: Edition = EDITIONS[SHIPPED],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Return the figures of `parts` (all by default) that have their files, and the missing files of the others.

    Both are keyed by part; `gates.GATES` has the bounds. The people to measure on are drawn into `work` once. `adapter`
    is an adapter folder, by default the shipped one. Face networks that an `edition` other than the shipped one lacks
    are the shipped ones. Raises ValueError for an unknown part and for an adapter of another base.
    """
    from tqdm import tqdm

    # Without people named by place there is nothing to measure of several.
    chosen = chosen_parts(parts, [name for name in _MEASURES if sample.shapes or name != "several_people"])
    adapter = weights / "adapter" if adapter is None else adapter
    several = f"_{len(sample.shapes)}" if sample.shapes else ""
    folder = work / f"strangers_{sample.people}x{sample.photos}_{sample.size}_{sample.seed}{several}"
    bench = _Bench(weights, folder, draw, sample, workers, adapter, edition)
    figures: dict[str, dict[str, Any]] = {}
    missing: dict[str, list[str]] = {}
    with tqdm(chosen, desc="measuring", unit="part") as bar:
        for part in bar:
            bar.set_postfix_str(part)
            needs, measure = _MEASURES[part]
            places = {ADAPTER: adapter / "adapter.safetensors"}
            absent = [name for name in needs if not places.get(name, bench.file(name)).is_file()]
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
    read = expression_pose.measure(OnnxNetwork(bench.file(FILES["expression_pose"])), bench.people)
    return {"expression": read["expression_128"], "pose": read["pose_128"]}


def _face_network(name: str) -> Callable[[_Bench], dict[str, Any]]:
    def measure(bench: _Bench) -> dict[str, Any]:
        module = importlib.import_module(f"model.foundation.{name}")
        figures: dict[str, Any] = module.measure(OnnxNetwork(bench.file(FILES[name])), bench.people)
        return figures

    return measure


def _detector(bench: _Bench) -> dict[str, Any]:
    figures = detector.measure(bench.file(FILES["detector"]), bench.people)
    return {name: value for name, value in figures.items() if not name.startswith("milliseconds")}


def _autoencoder(bench: _Bench) -> dict[str, Any]:
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(bench.weights / "sd" / "vae", local_files_only=True).float().eval()
    figures = reconstruction.measure(model, bench.people, np.asarray(bench.photos), bench.reader)
    small = reconstruction.measure_small(model, bench.people.groups, bench.reader) if bench.sample.shapes else {}
    return {**figures, **small}


def _clip(bench: _Bench) -> dict[str, Any]:
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(bench.weights / "clip", local_files_only=True).float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(bench.weights / "clip", local_files_only=True)
    faces = clip.crops(bench.people, bench.folder / "pictures", bench.edition)
    return clip.measure(model, tokenizer, bench.people, faces)


def _several(bench: _Bench) -> dict[str, Any]:
    reader = FaceReader(bench.file, several_people.DETECTION)
    return several_people.measure(bench.weights, bench.people.groups, reader, bench.sample.drawn)


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
    "transformer": (
        (TRANSFORMER, CLIP, *FaceReader.NEEDS),
        lambda bench: text_to_image.measure_transformer(
            bench.weights, bench.people, bench.photos, bench.reader, bench.sample.drawn
        ),
    ),
    "several_people": ((UNET, VAE, CLIP, *FaceReader.NEEDS), _several),
    "identity_tokens": (
        (ADAPTER, UNET, VAE, CLIP, FILES["recogniser"], *FaceReader.NEEDS),
        lambda at: measure_tokens(at.identities, at.reader, at.sample.drawn),
    ),
    "imr": ((ADAPTER, UNET, FILES["recogniser"]), lambda at: measure_imr(at.identities)),
}

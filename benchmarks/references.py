"""Measure what several references of one person bring: identity similarity s by their number, averaged or concatenated.

    python benchmarks/references.py                    # 24 people whom no network has seen, ten minutes of one core
    python benchmarks/references.py --people 40 --noises 8

People are drawn, the networks are those that ship. Every way draws the same pictures from the same noise, half of them
with a face prompt; with one reference, it is the best of the four (`best`), or any of them (`any`). s compares a
picture with four photos of the person that are no reference, by the evaluation's judge: 0 is a stranger, 1 another
photo of the person. Intervals are paired, over people. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import print_report, rounded

if TYPE_CHECKING:
    from model.face.face import Face
    from pipelines.core.params import Params
    from pipelines.data.faces.record import FaceRecord
    from pipelines.evaluation.readings import FaceReader, Readings

_PROJECT = Path(__file__).resolve().parents[1]
NAMESPACE = "references"
_SIDE, _REFERENCES, _OTHERS, _RESAMPLES = 256, 4, 4, 2000
_PROMPT = "a photo of a person wearing a red t-shirt, blue background"
# How many references, and how they are combined.
_WAYS = ((1, "best"), (1, "any"), (2, "average"), (2, "concatenate"), (4, "average"), (4, "concatenate"))


@dataclass(frozen=True)
class Sitter:
    """A drawn person: four faces, the best one first, what the judge reads of the photos, and of four others."""

    faces: list[Face]
    references: Readings
    others: Readings


def photos_of(index: int, analyser: Any) -> list[FaceRecord]:
    """Return the analysed photos of a drawn person, of any expressions and poses."""
    import cv2

    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    person, scenes = Person.sample(NAMESPACE, 0, index), person_scenes(0, index, NAMESPACE)
    chosen = np.random.default_rng(index).permutation(len(scenes))[: _REFERENCES + _OTHERS]
    drawn = (render(person, scenes[number], _SIDE).image for number in chosen)
    records = analyser.analyse([cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in drawn])
    if any(record.status != "ok" for record in records):
        raise SystemExit(f"person {index}: a photo was refused ({[record.reason for record in records]})")
    return records


def sitter(records: Sequence[Any], inputs: Any, reader: FaceReader) -> Sitter:
    """Return a person of analysed photos, the first four of which are references."""
    import cv2

    from pipelines.data.faces.analysis import to_face
    from pipelines.data.faces.protocols import Detection
    from pipelines.serving.reference_sets import best_first

    ordered: list[Any] = [*best_first(records[:_REFERENCES]), *records[_REFERENCES:]]
    images: list[Any] = [cv2.imdecode(np.frombuffer(one.image, np.uint8), cv2.IMREAD_COLOR) for one in ordered]
    read = reader.read(
        [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in images],
        [Detection(one.bbox, one.keypoints, 1.0) for one in ordered],
    )
    faces = [to_face(record, inputs) for record in ordered[:_REFERENCES]]
    return Sitter(faces, read.rows(range(_REFERENCES)), read.rows(range(_REFERENCES, len(ordered))))


def person_of(faces: Sequence[Face], count: int, combine: Any) -> Any:
    """Return the person of one way to draw: a face, or a set of them."""
    from model.face.face import ReferenceSet

    if count == 1:
        return faces[0 if combine == "best" else -1]
    return ReferenceSet(tuple(faces[:count]), combine)


def draw(  # noqa: PLR0917
    pipe: Any,
    params: Params,
    people: Sequence[Any],
    texts: Sequence[str | None],
    noises: Sequence[int],
    motions: Sequence[Any] | None = None,
) -> Any:
    """Return a picture (H, W, 3) uint8 RGB of each person, all from one batch of noises."""
    import torch

    from pipelines.evaluation.sampling import picture_size

    settings, images = params.evaluate, []
    side = picture_size(params.base.resolution, 1, None)[0]
    shape = (pipe.vae.config.latent_channels, side // pipe.vae_scale_factor, side // pipe.vae_scale_factor)
    for start in range(0, len(people), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in noises[part]]
        done = pipe(
            [_PROMPT] * len(noise),
            faces=[[person] for person in people[part]],
            face_prompts=[[text] for text in texts[part]],
            motions=None if motions is None else [[motion] for motion in motions[part]],
            latents=torch.stack(noise),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_rescale=settings.guidance_rescale,
            height=side,
            width=side,
            output_type="np",
        )
        images += list(np.clip(np.rint(done.images * 255.0), 0, 255).astype(np.uint8))
    return images


def measured(scores: Mapping[str, np.ndarray], sitters: Sequence[Sitter]) -> dict[str, Any]:
    """Return s of every way, and its difference from `1 best`; `scores` are cosines by person (P,) of each way."""
    from pipelines.evaluation.intervals import bootstrap, resample

    # Ceiling and floor: the person's own references, and those of all other people.
    high = np.array([(one.references.embeddings @ one.others.embeddings.T).mean() for one in sitters])
    low = np.array(
        [
            np.mean([(two.references.embeddings @ one.others.embeddings.T).mean() for two in sitters if two is not one])
            for one in sitters
        ]
    )
    weights = resample(len(sitters), _RESAMPLES, 0)
    first = scores["1 best"]

    def interval(values: np.ndarray, below: np.ndarray) -> dict[str, float]:
        return bootstrap(lambda w: (w @ (values - below)) / (w @ (high - low)), weights).plain()

    return {way: {"s": interval(one, low), "gain": interval(one, first)} for way, one in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--people", type=int, default=24, help="number of people")
    parser.add_argument(
        "--noises", type=int, default=2, help="pictures of each person and way; half have a face prompt"
    )
    parser.add_argument("--out", type=Path, help="also write the JSON, indented, to this file")
    options = parser.parse_args()

    from model.face.face_prompts import EXPRESSIONS, compose
    from pipelines.core.params import load_params
    from pipelines.data.faces.analysis import load_analyser
    from pipelines.data.faces.face_inputs import FaceInputs
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.sampling import load_pipeline, use_sampler

    params = load_params(_PROJECT / "profiles" / "tiny.yaml")
    pipe = load_pipeline(params, _PROJECT / "model" / "foundation" / "weights" / "adapter")
    use_sampler(pipe, params.evaluate.sampler)
    pipe.set_progress_bar_config(disable=True)
    reader, analyser = load_judges(params).faces, load_analyser(params.preprocess)
    inputs = FaceInputs(pipe.crop_size, pipe.conventions, params.preprocess)
    sitters = [sitter(photos_of(index, analyser), inputs, reader) for index in range(options.people)]
    owner = np.repeat(np.arange(options.people), options.noises)
    turn = np.tile(np.arange(options.noises), options.people)
    asked = turn % 2 == 1
    wanted = np.where(
        asked, (owner + turn) % len(EXPRESSIONS), [EXPRESSIONS.index(sitters[n].faces[0].expression) for n in owner]
    )
    texts = [compose(EXPRESSIONS[one], "front") if text else None for one, text in zip(wanted, asked, strict=True)]
    scores: dict[str, dict[str, np.ndarray]] = {"asked": {}, "kept": {}, "all": {}}
    report: dict[str, Any] = {"people": options.people, "pictures": len(owner), "expression": {}}
    for count, combine in _WAYS:
        people = [person_of(sitters[n].faces, count, combine) for n in owner]
        read = reader.single(
            draw(pipe, params, people, texts, [int(1000 * n + t) for n, t in zip(owner, turn, strict=True)])
        )
        cosines = np.array(
            [(sitters[n].others.embeddings @ one).mean() for n, one in zip(owner, read.embeddings, strict=True)]
        )
        right = read.expression == wanted
        report["expression"][f"{count} {combine}"] = {
            "asked": float(right[asked].mean()),
            "kept": float(right[~asked].mean()),
        }
        for name, rows in (("asked", asked), ("kept", ~asked), ("all", np.ones(len(owner), bool))):
            scores[name][f"{count} {combine}"] = np.array(
                [cosines[rows & (owner == n)].mean() for n in range(options.people)]
            )
        print(f"{count} {combine}: cosine {cosines.mean():.3f}", flush=True)
    report |= {name: measured(values, sitters) for name, values in scores.items()}
    print_report(rounded(report), options.out)


if __name__ == "__main__":
    main()

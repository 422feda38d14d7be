"""Train the foundation: resumable parts, in order, fill a folder with weights and a manifest.

`work`/<part> has `recipe.json` (settings and hashes of the inputs), `state/` (checkpoints) and, once the part is
finished, `figures.json` and `files.json` (hashes of its files). Delete the folder to train the part again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model.foundation import manifest
from model.foundation.face_networks import FILES, train_face_network
from model.foundation.measure import CLIP, UNET, VAE, Sample, chosen_parts, measure_foundation
from model.foundation.people import Draw, People, open_people, render_people
from model.foundation.shipped_adapter import FOLDER, matches_base

Recipe = dict[str, Any]


@dataclass(frozen=True)
class TrainingContext:
    """Folders of a training, the function that draws people, and the number of its processes."""

    work: Path
    weights: Path
    draw: Draw
    workers: int

    @cached_property
    def people(self) -> People:
        """The training set; ValueError where it is not drawn."""
        return open_people(self.work / "people")


Make = Callable[[TrainingContext, str, dict[str, int]], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One part: `make(context, name, settings)` trains it, writes its `files` and returns its figures.

    `needs` are files of earlier parts that it is trained on.
    """

    name: str
    make: Make
    settings: dict[str, int]
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def _people(context: TrainingContext, name: str, settings: dict[str, int]) -> dict[str, Any]:
    share = settings["pairs"] / (settings["people"] * settings["photos"])
    asked = {key: settings[key] for key in ("people", "photos", "size", "seed")}
    data = render_people(context.work / name, context.draw, workers=context.workers, groups=share, **asked)
    # Remove smaller copies of an earlier set.
    shutil.rmtree(context.work / "pictures", ignore_errors=True)
    return {
        "photos": len(data.photos),
        "pairs": len(data.group_prompts),
        "people_held_out": int(data.identity.max()) + 1 - data.first_held_out,
    }


def _face_network(context: TrainingContext, name: str, settings: dict[str, int]) -> dict[str, Any]:
    return train_face_network(name, context.people, context.work / name, context.weights, **settings)


def _autoencoder(context: TrainingContext, name: str, settings: dict[str, int]) -> dict[str, Any]:
    from model.foundation import vae

    network, figures = vae.train(context.people, context.work / name, **settings)
    network.half().save_pretrained(context.weights / "sd" / "vae", safe_serialization=True)
    # Remove latents of an earlier autoencoder.
    for latents in (context.work / "pictures").glob("*latents.npy"):
        latents.unlink()
    return figures


def _clip(context: TrainingContext, name: str, settings: dict[str, int]) -> dict[str, Any]:
    from model.foundation import clip
    from model.foundation.assemble import save_clip
    from model.foundation.tokenizer import learn_tokenizer

    people = context.people
    tokenizer = learn_tokenizer([*people.prompts[:4000], *people.face_prompts[:1000], *people.group_prompts[:400]])
    network, figures = clip.train(people, tokenizer, context.work / name, **settings)
    save_clip(network, tokenizer, context.weights)
    return figures


def _unet(context: TrainingContext, name: str, settings: dict[str, int]) -> dict[str, Any]:
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTokenizer

    from model.foundation import unet
    from model.foundation.assemble import save_pipeline, text_encoder_of

    vae = AutoencoderKL.from_pretrained(context.weights / "sd" / "vae", local_files_only=True).float().eval()
    clip = CLIPModel.from_pretrained(context.weights / "clip", local_files_only=True).float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(context.weights / "clip", local_files_only=True)
    text = text_encoder_of(clip)
    network = unet.train(context.people, vae, text, tokenizer, context.work / name, **settings)
    parameters = sum(value.numel() for value in network.parameters())
    save_pipeline(vae, text, tokenizer, network, context.weights)
    return {"parameters": parameters}


RECIPE: tuple[Part, ...] = (
    Part("people", _people, {"people": 700, "photos": 28, "size": 128, "seed": 0, "pairs": 1568}),
    Part("landmarks", _face_network, {"steps": 1600, "seed": 0}, (FILES["landmarks"],)),
    Part("recogniser", _face_network, {"steps": 1500, "seed": 0}, (FILES["recogniser"],)),
    Part("detector", _face_network, {"steps": 2000, "batch": 48, "seed": 12}, (FILES["detector"],)),
    Part("judge", _face_network, {"steps": 1500, "seed": 77}, (FILES["judge"],)),
    Part("expression_pose", _face_network, {"steps": 2000, "seed": 2}, (FILES["expression_pose"],)),
    Part("autoencoder", _autoencoder, {"steps": 3200, "decoder_steps": 4000, "seed": 0}, (VAE,)),
    Part("clip", _clip, {"steps": 500, "seed": 0}, (CLIP, "image_encoder/model.safetensors")),
    Part(
        "unet",
        _unet,
        {"steps": 2350, "second_steps": 2750, "third_steps": 3000, "fourth_steps": 3000, "seed": 0},
        (UNET, "sd/text_encoder/model.safetensors"),
        needs=(VAE, CLIP),
    ),
)
PARTS: tuple[str, ...] = tuple(part.name for part in RECIPE)


@dataclass(frozen=True)
class TrainingResult:
    """Figures by part, and the manifest's path or, before it can be written, the missing parts."""

    figures: dict[str, dict[str, Any]]
    manifest: Path | None
    missing: tuple[str, ...]


def train_foundation(
    work: Path,
    weights: Path,
    draw: Draw,
    *,
    parts: Sequence[str] | None = None,
    steps_scale: float = 1.0,
    workers: int = 2,
    sample: Sample | None = None,
) -> TrainingResult:
    """Train the unfinished parts among `parts` (all by default), in the order of RECIPE, from their last checkpoints.

    When all parts are finished, measure them on the people of `sample` and write the manifest. People already in `work`
    are used as they are; `steps_scale` multiplies the steps of every part (at least one remains). Raises ValueError for
    an unknown part, a part begun with other settings or data, and a missing file of an earlier part;
    FloatingPointError where a loss is NaN or infinite.
    """
    names = chosen_parts(parts, PARTS)
    context = TrainingContext(work, weights, draw, workers)
    for part in RECIPE:
        if part.name not in names:
            continue
        settings = _settings(part, work, steps_scale)
        recipe = _recipe(part, context, settings)
        folder = work / part.name
        _record_recipe(folder, recipe)
        if _finished(part, context):
            continue
        weights.mkdir(parents=True, exist_ok=True)
        _write(folder / "figures.json", part.make(context, part.name, settings))
        _write(folder / "files.json", {name: manifest.digest(weights / name) for name in part.files})
    return _finish(context, sample or Sample())


def _settings(part: Part, work: Path, steps_scale: float) -> dict[str, int]:
    if part.name == "people":
        drawn = _read(work / "people" / "settings.json")
        # `settings.json` calls `pairs` `groups`; the settings must be the same before and after drawing.
        return {name: {**drawn, "pairs": drawn["groups"]}[name] for name in part.settings} if drawn else part.settings
    scaled = {key: max(1, round(value * steps_scale)) for key, value in part.settings.items() if key.endswith("steps")}
    return {**part.settings, **scaled}


def _recipe(part: Part, context: TrainingContext, settings: dict[str, int]) -> Recipe:
    """Return the settings and the hashes of the part's inputs; raise ValueError where one is missing."""
    if part.name == "people":
        return {"settings": settings}
    people = context.work / "people" / "prompts.json"
    if not people.is_file():
        raise ValueError(f"{context.work}: no finished set of people there; train part people first")
    inputs = {"people": manifest.digest(people)}
    for name in part.needs:
        if not (context.weights / name).is_file():
            maker = next(other.name for other in RECIPE if name in other.files)
            raise ValueError(
                f"{context.weights}/{name}: missing, and {part.name} is trained on it; train {maker} first"
            )
        inputs[name] = manifest.digest(context.weights / name)
    return {"settings": settings, "inputs": inputs}


def _record_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe` into `folder`; raise ValueError where a training with another recipe has begun."""
    kept = _read(folder / "recipe.json")
    if kept is not None and kept != recipe:
        changed = sorted(
            f"{name} {json.dumps(kept.get(group, {}).get(name))} there, {json.dumps(value)} now"
            for group, values in recipe.items()
            for name, value in values.items()
            if kept.get(group, {}).get(name) != value
        )
        raise ValueError(
            f"{folder}: begun with another recipe ({'; '.join(changed)}); delete the folder to train it anew"
        )
    if kept is None and any(folder.rglob("step-*")):
        raise ValueError(f"{folder}: checkpoints of unknown settings (no recipe.json); delete the folder")
    _write(folder / "recipe.json", recipe)


def _finished(part: Part, context: TrainingContext) -> bool:
    """Return whether the part is trained and its files are unchanged in the weights."""
    written = _read(context.work / part.name / "files.json")
    return written is not None and _has_files(context.weights, written)


def _has_files(weights: Path, files: dict[str, str]) -> bool:
    return all((weights / name).is_file() and manifest.digest(weights / name) == known for name, known in files.items())


def _finish(context: TrainingContext, sample: Sample) -> TrainingResult:
    """Measure and write the manifest if all parts are finished, in `work` or according to the earlier manifest."""
    known = manifest.read(context.weights) if (context.weights / manifest.FILE).is_file() else None
    recipe: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    missing = []
    for part in RECIPE:
        if _finished(part, context):
            recipe[part.name] = _read(context.work / part.name / "recipe.json")["settings"]
            figures[part.name] = _read(context.work / part.name / "figures.json")
        elif known and part.name in known["recipe"] and _has_files(context.weights, _listed_hashes(known, part)):
            recipe[part.name] = known["recipe"][part.name]
            figures[part.name] = known["figures"].get(part.name, {})
        else:
            missing.append(part.name)
    file = context.weights / manifest.FILE
    if missing:
        return TrainingResult(figures, None, tuple(missing))
    if known and not manifest.check(context.weights) and recipe.items() <= known["recipe"].items():
        return TrainingResult(known["figures"], file, ())
    measured, _ = measure_foundation(context.weights, context.work, context.draw, sample, workers=context.workers)
    figures = {name: {**figures[name], **measured.get(name, {})} for name in figures}
    if known and matches_base(context.weights):
        # Keep the shipped adapter while it matches its base.
        recipe |= {FOLDER: known["recipe"][FOLDER]} if FOLDER in known["recipe"] else {}
        figures |= {name: found for name, found in {**known["figures"], **measured}.items() if name not in PARTS}
    return TrainingResult(figures, manifest.write(context.weights, recipe, figures), ())


def _listed_hashes(known: dict[str, Any], part: Part) -> dict[str, str]:
    return {name: known["files"].get(name, {}).get("sha256", "") for name in part.files}


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)

"""The parts of the foundation: what each is trained on, with which settings, and which files it writes."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from model.foundation import manifest
from model.foundation.edition import Edition, GroupShape
from model.foundation.face_networks import FILES, train_face_network
from model.foundation.loop import Legs
from model.foundation.measure import CLIP, TRANSFORMER, UNET, VAE
from model.foundation.people import Draw, People, open_people
from model.foundation.render import render_people

Recipe = dict[str, Any]
"""`settings` of a part, and the hashes of its `inputs`."""


@dataclass(frozen=True)
class PartContext:
    """Folders of a training and its edition."""

    work: Path
    weights: Path
    edition: Edition

    def legs(self, name: str, recipe: Recipe, save: Callable[[], None], load: Callable[[], None]) -> Legs:
        """Return the legs of a part; after each, `save` writes its files and the manifest states how many are done.

        Where this machine has trained none, but the files are the result of some legs of the same recipe, `load` reads
        them and only the others are trained.
        """
        folder = self.work / name
        steps = tuple(value for key, value in recipe["settings"].items() if key.endswith("steps"))

        def finished(count: int) -> None:
            save()
            manifest.note_begun(self.weights, name, recipe, count)

        legs = Legs(folder, steps, finished=finished)
        done = manifest.legs_begun(self.weights, name, recipe)
        if legs.kept or not 0 < done < len(steps):
            return legs
        load()
        print(
            f"{name}: begins with leg {done} (of 0 to {len(steps) - 1}) from the half precision in {self.weights}; the "
            "optimiser's state is not there, so that the learning rate warms up again",
            file=sys.stderr,
        )
        return replace(legs, done=done)


@dataclass(frozen=True)
class TrainingContext(PartContext):
    """Also the function that draws people, and the number of its processes."""

    draw: Draw
    workers: int

    @cached_property
    def people(self) -> People:
        """The training set; ValueError where it is not drawn."""
        return open_people(self.work / "people")


Make = Callable[[Any, str, Recipe], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One part: `make(context, name, recipe)` trains it, writes its `files` and returns its figures.

    `needs` are files of earlier parts that it is trained on. An edition after the first uses the `inherited` parts of
    the shipped one, unless they are asked for by name. `optional` parts are trained only where they are.
    """

    name: str
    make: Make
    settings: Callable[[Edition], dict[str, Any]]
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inherited: bool = False
    optional: bool = False


def _people(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    settings = recipe["settings"]
    asked = {key: settings[key] for key in ("people", "photos", "size", "seed")}
    share = settings["pairs"] / (settings["people"] * settings["photos"])
    shapes = [GroupShape(width, height, count, tuple(of)) for width, height, count, of in settings.get("shapes", [])]
    data = render_people(
        context.work / name, context.draw, workers=context.workers, groups=share, shapes=shapes, **asked
    )
    # Remove smaller copies of an earlier set.
    shutil.rmtree(context.work / "pictures", ignore_errors=True)
    return {
        "photos": len(data.photos),
        "groups" if shapes else "pairs": sum(len(groups.prompts) for groups in data.groups),
        "people_held_out": int(data.identity.max()) + 1 - data.first_held_out,
    }


def _face_network(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    return train_face_network(name, context.people, context.work / name, context.weights, **recipe["settings"])


def _autoencoder(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from diffusers import AutoencoderKL

    from model.foundation import vae

    folder, network = context.weights / "sd" / "vae", vae.build(context.edition)

    def save() -> None:
        copy.deepcopy(network).half().save_pretrained(folder, safe_serialization=True)

    def load() -> None:
        network.load_state_dict(AutoencoderKL.from_pretrained(folder, local_files_only=True).float().state_dict())

    figures = vae.train(network, context.people, context.edition, context.legs(name, recipe, save, load))
    save()
    # Remove latents of an earlier autoencoder.
    for latents in (context.work / "pictures").glob("*latents.npy"):
        latents.unlink()
    return figures


def _clip(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from model.foundation import clip

    people, edition = context.people, context.edition

    def train(network: Any, tokenizer: Any, legs: Legs) -> dict[str, Any]:
        return clip.train(network, tokenizer, people, edition, legs)

    return train_clip(context, name, recipe, _texts(people), train)


def train_clip(
    context: PartContext,
    name: str,
    recipe: Recipe,
    texts: Sequence[str],
    train: Callable[[Any, Any, Legs], dict[str, Any]],
) -> dict[str, Any]:
    """Learn a tokenizer from `texts` and `train(network, tokenizer, legs)` a CLIP; return the figures of `train`."""
    from transformers import CLIPModel

    from model.foundation import clip
    from model.foundation.assemble import save_clip
    from model.foundation.tokenizer import learn_tokenizer

    edition = context.edition
    tokenizer = learn_tokenizer(texts, edition.clip.merges, edition.clip.tokens)
    network = clip.build(edition, tokenizer)

    def save() -> None:
        save_clip(copy.deepcopy(network), tokenizer, context.weights)

    def load() -> None:
        found = CLIPModel.from_pretrained(context.weights / "clip", local_files_only=True).float()
        network.load_state_dict(found.state_dict())

    figures = train(network, tokenizer, context.legs(name, recipe, save, load))
    save()
    return figures


def _texts(people: People) -> list[str]:
    """Return texts from which the tokenizer learns its symbols."""
    groups = [text for one in people.groups for text in one.prompts[:400]]
    return [*people.prompts[:4000], *people.face_prompts[:1000], *groups]


def _frozen(weights: Path) -> tuple[Any, Any, Any]:
    """Return what a denoiser is trained beside: autoencoder, text encoder and tokenizer."""
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTokenizer

    from model.foundation.assemble import text_encoder_of

    vae = AutoencoderKL.from_pretrained(weights / "sd" / "vae", local_files_only=True).float().eval()
    clip = CLIPModel.from_pretrained(weights / "clip", local_files_only=True).float().eval()
    return vae, text_encoder_of(clip), CLIPTokenizer.from_pretrained(weights / "clip", local_files_only=True)


def _unet(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    from model.foundation import unet
    from model.foundation.assemble import save_pipeline

    vae, text, tokenizer = _frozen(context.weights)
    network = unet.build(context.edition, text.config.hidden_size)

    def save() -> None:
        copies = copy.deepcopy((vae, text, network))
        save_pipeline(copies[0], copies[1], tokenizer, copies[2], context.weights)

    def load() -> None:
        found = UNet2DConditionModel.from_pretrained(context.weights / "sd" / "unet", local_files_only=True).float()
        network.load_state_dict(found.state_dict())

    legs = context.legs(name, recipe, save, load)
    unet.train(network, context.people, context.edition, legs, vae=vae, text_encoder=text, tokenizer=tokenizer)
    save()
    return {"parameters": sum(value.numel() for value in network.parameters())}


def _transformer(context: TrainingContext, name: str, recipe: Recipe) -> dict[str, Any]:
    from diffusers import FluxTransformer2DModel

    from model.foundation import transformer
    from model.foundation.assemble import save_flux_pipeline

    vae, text, tokenizer = _frozen(context.weights)
    network = transformer.build(context.edition, text.config.hidden_size)

    def save() -> None:
        copies = copy.deepcopy((vae, text, network))
        save_flux_pipeline(copies[0], copies[1], tokenizer, copies[2], context.weights)

    def load() -> None:
        folder = context.weights / "flux" / "transformer"
        network.load_state_dict(FluxTransformer2DModel.from_pretrained(folder).float().state_dict())

    legs = context.legs(name, recipe, save, load)
    transformer.train(network, context.people, context.edition, legs, vae=vae, text_encoder=text, tokenizer=tokenizer)
    save()
    return {"parameters": sum(value.numel() for value in network.parameters())}


def spec_settings(name: str, steps: tuple[str, ...]) -> Callable[[Edition], dict[str, Any]]:
    """Return the settings of a part: the steps of its legs, its seed and, after the first edition, the whole spec."""

    def settings(edition: Edition) -> dict[str, Any]:
        spec = getattr(edition, name)
        named = {**dict(zip(steps, spec.steps, strict=False)), "seed": spec.seed}
        if edition.number == 1:
            return named
        return {**named, **{key: value for key, value in asdict(spec).items() if key not in ("steps", "seed")}}

    return settings


def _people_settings(edition: Edition) -> dict[str, Any]:
    settings = asdict(edition.people)
    shapes = [[shape.width, shape.height, shape.pictures, shape.people] for shape in edition.people.shapes]
    return {**settings, "shapes": shapes} if shapes else {k: v for k, v in settings.items() if k != "shapes"}


def _face(name: str, **settings: int) -> Part:
    return Part(name, _face_network, lambda _: settings, (FILES[name],), inherited=True)


LEGS = ("steps", "second_steps", "third_steps", "fourth_steps")
RECIPE: tuple[Part, ...] = (
    Part("people", _people, _people_settings),
    _face("landmarks", steps=1600, seed=0),
    _face("recogniser", steps=1500, seed=0),
    _face("detector", steps=2000, batch=48, seed=12),
    _face("judge", steps=1500, seed=77),
    _face("expression_pose", steps=2000, seed=2),
    Part("autoencoder", _autoencoder, spec_settings("autoencoder", ("steps", "decoder_steps")), (VAE,)),
    Part("clip", _clip, spec_settings("clip", LEGS), (CLIP, "image_encoder/model.safetensors")),
    Part("unet", _unet, spec_settings("unet", LEGS), (UNET, "sd/text_encoder/model.safetensors"), (VAE, CLIP)),
    Part("transformer", _transformer, spec_settings("transformer", LEGS), (TRANSFORMER,), (VAE, CLIP), optional=True),
)
PARTS: tuple[str, ...] = tuple(part.name for part in RECIPE)

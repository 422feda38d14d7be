"""From the name of a model to one that draws, in Python as for `dynamicid generate`.

from pipelines.registry.loading import load

draw = load("models:/dynamicid@champion")
picture = draw("a photo of a person, blue background", ["me.jpg"], face_prompts=["happy"], seed=1)
picture.image.save("me.png")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import ADAPTER
from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256
from pipelines.core.params import PARAMS, Params, load_params
from pipelines.core.paths import resolve
from pipelines.core.words import did_you_mean
from pipelines.registry.model_uri import adapter_folder, find_adapter, is_model_uri
from pipelines.registry.registry import find_version, open_registry

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.serving.generation import GeneratedPicture, Generator
    from pipelines.serving.request import Box

    Photo = str | Path | bytes | Image

# What a call of a model takes beside faces, prompts, boxes and seed.
_SAMPLING = ("width", "height", "steps", "guidance", "negative_prompt", "sampler", "scale")


@dataclass(frozen=True)
class ChosenAdapter:
    """An adapter folder, and which one it is.

    `origin`: such as "dynamicid, version 3, the champion when it was loaded" or "models/adapter, 3fa9c1d2e3f4, trained
    in this checkout", with the start of the folder's sha256. `params`: those to draw with. `name` and `version` are
    those of the registry, "" for a folder.
    """

    folder: Path
    origin: str
    params: Params
    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class Model:
    """A model in memory: a call draws one picture. `adapter` is the one that was loaded."""

    generator: Generator
    adapter: ChosenAdapter

    def __call__(
        self,
        prompt: str,
        faces: Sequence[Photo | Sequence[Photo]],
        *,
        face_prompts: Sequence[str] = (),
        boxes: Sequence[Box] = (),
        strength: Sequence[float | None] = (),
        yaw: Sequence[float | None] = (),
        pitch: Sequence[float | None] = (),
        roll: Sequence[float | None] = (),
        driving: Sequence[Photo | None] = (),
        seed: int = 0,
        **sampling: Any,
    ) -> GeneratedPicture:
        """Draw the people of `faces` and return the picture: `image` (PIL, RGB) and `note`, why it may be wrong.

        `faces`: one photo a person, or a list of several of one person: a file, its bytes, or a PIL picture, with one
        large face. `face_prompts`: none, or expression and pose of each person; "" keeps those of the photo (of
        several: of the most frontal one). `boxes`: none, or (y0, x0, y1, x1) of each person, fractions of the picture
        in [0, 1]. `strength` (0 to 1.5), `yaw`, `pitch`, `roll` (degrees) and `driving` (a photo of anybody, whose
        expression and pose are taken): none, or one for each person, None for nothing. `seed`: from 0 to 2⁶³ − 1; the
        same call gives the same picture. `sampling`: `width` and `height` (pixels, multiples of 8), `steps` (at least
        1), `guidance` (at least 0), `negative_prompt`, `sampler` ("ddim", "dpm", "euler" or "lcm"), `scale` (strength
        of the identity, 1.0); defaults are those of the parameters and the base.

        Raises UserError, with what to change, where `dynamicid generate` ends with exit code 2: a photo without one
        clear face, a face prompt that contradicts itself, too many people for the base, a value out of its range.
        """
        from pipelines.serving.motion_request import motions_of
        from pipelines.serving.request import DrawRequest

        for name in sampling:
            if name not in _SAMPLING:
                near = did_you_mean(name, _SAMPLING) or f"; there are {', '.join(_SAMPLING)}"
                raise UserError(f"{name}: no argument of a drawing{near}")
        if isinstance(faces, str | bytes | Path) or isinstance(face_prompts, str):
            raise UserError('faces and face_prompts are lists with an entry for each person: ["me.jpg"], ["happy"]')
        references = tuple(_references(given, number) for number, given in enumerate(faces, 1))
        numbers = {"strength": strength, "yaw": yaw, "pitch": pitch, "roll": roll}
        request = DrawRequest(
            references,
            prompt,
            face_prompts=tuple(face_prompts),
            boxes=tuple(boxes),
            seed=seed,
            motions=motions_of(numbers, len(references)),
            driving=tuple(
                None if photo is None else _reference(photo, f"driving photo of person {n}")
                for n, photo in enumerate(driving, 1)
            ),
            **sampling,
        )
        return self.generator.draw(request)


def load(model: str | Path | None = None, params: Params | str | Path = PARAMS) -> Model:
    """Load a model once, to draw with it many times.

    `model`: a registered version (`models:/dynamicid@champion`, `models:/dynamicid/3`) of the tracking server or
    database of the current folder, or an adapter folder; None as in `choose_adapter`. `params`: the parameters, or
    their file, which name the base and the face networks; a version has its own sampling. Raises UserError where one of
    them is missing, or the adapter was trained for another base; StageFailed where it was trained with another
    recogniser.
    """
    from pipelines.serving.generation import Generator

    read = params if isinstance(params, Params) else load_params(Path(params))
    chosen = choose_adapter(None if model is None else str(model), read, Path.cwd())
    return Model(Generator.load(chosen.folder, chosen.params), chosen)


def choose_adapter(wanted: str | None, params: Params, root: Path, asked: Sequence[str] = ()) -> ChosenAdapter:
    """Return the adapter `wanted`; for None that of this checkout's training, or before any, the one that ships.

    A registered version draws with the sampling that it was registered with, as where it is served, but for the
    `asked` ones: changes `section.key=value`, which `params` has. An alias is resolved to its version first, so that
    its origin stays true when the alias moves. Raises UserError where there is no such version, or no adapter in the
    folder.
    """
    if wanted is not None and is_model_uri(wanted):
        found = find_version(open_registry(root), wanted)
        title, alias = f"{found.name}, version {found.version}", wanted.partition("@")[2]
        folder = adapter_folder(f"models:/{found.name}/{found.version}", root)
        origin = f"{title}, the {alias} when it was loaded" if alias else title
        own = _with_own_sampling(params, folder.parent / PARAMS, asked)
        return ChosenAdapter(folder, origin, own, found.name, str(found.version))
    wanted, why = _default(params) if wanted is None else (wanted, "")
    folder = find_adapter(wanted, root)
    return ChosenAdapter(folder, ", ".join(filter(None, (wanted, folder_sha256(folder)[:12], why))), params)


def _with_own_sampling(params: Params, file: Path, asked: Sequence[str]) -> Params:
    """Return `params` with the sampling of a version's parameter `file`, if it has one, but for what is `asked`."""
    from pipelines.evaluation.sampling import SAMPLED

    if not file.is_file():
        return params
    own, keys = load_params(file), {one.partition("=")[0].strip() for one in asked}
    evaluate = {key: getattr(own.evaluate, key) for key in SAMPLED if f"evaluate.{key}" not in keys}
    serve = {} if "serve.steps" in keys else {"steps": own.serve.steps or own.evaluate.steps}
    return params.model_copy(
        update={
            "evaluate": params.evaluate.model_copy(update=evaluate),
            "serve": params.serve.model_copy(update=serve),
        }
    )


def _default(params: Params) -> tuple[str, str]:
    shipped = params.evaluate.shipped_adapter
    if shipped is None or (resolve(ADAPTER) / "config.json").is_file():
        return ADAPTER, "trained in this checkout"
    return shipped, f"the one that ships, as there is no {ADAPTER} yet"


def _references(given: Any, number: int) -> Any:
    """Return the reference of person `number` of a call, or several; raises as `_reference`."""
    if not isinstance(given, list | tuple):
        return _reference(given, f"face {number}")
    return tuple(_reference(photo, f"reference {n} of person {number}") for n, photo in enumerate(given, 1))


def _reference(photo: Any, name: str) -> Any:
    """Return a photo of a call as an encoded picture with a name; raise UserError where it is none."""
    from PIL.Image import Image

    from pipelines.serving.request import Reference

    if isinstance(photo, bytes):
        return Reference(name, photo)
    if isinstance(photo, Image):
        buffer = io.BytesIO()
        photo.save(buffer, format="PNG")
        return Reference(name, buffer.getvalue())
    if not isinstance(photo, str | Path):
        raise UserError(f"{name}: {type(photo).__name__}; expected a file, its bytes, or a PIL picture of one person")
    if not Path(photo).is_file():
        raise UserError(f"{photo}: no such file; expected a photo of one person")
    return Reference(str(photo), Path(photo).read_bytes())

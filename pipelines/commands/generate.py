"""`dynamicid generate`: generate a picture of people from one photo each, or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, parse
from pipelines.commands.options import DEFAULT_PARAMS, AdapterChoice, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, warn
from pipelines.core.errors import UserError
from pipelines.core.words import counted

if TYPE_CHECKING:
    from pipelines.serving.request import Box


_FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def generate(
    *,
    reference: Annotated[
        list[str],
        option(
            "Photo of one person; repeatable. FILE+FILE: several of one person. FILE#2: its second face from the left. "
            "FILE@y0,x0,y1,x1 or FILE#2@…: the box (0 to 1).",
            metavar="FILE",
        ),
    ],
    prompt: Annotated[str, option("Text prompt: what the picture shows besides the faces.")],
    out: Annotated[Path, option("Picture to write: .png, .jpg, .webp.")],
    face_prompt: Annotated[
        list[str] | None, option('Expression and pose, such as "sad, turned to the left"; one per person.')
    ] = None,
    strength: Annotated[
        list[str] | None,
        option('Strength of the expression, 0 (neutral) to 1.5; 1: as the word means it. One per person, "": none.'),
    ] = None,
    yaw: Annotated[
        list[str] | None, option("Yaw in degrees, -90 to 90, positive to the picture's right; likewise.")
    ] = None,
    pitch: Annotated[list[str] | None, option("Pitch in degrees, -60 to 60, positive upwards; likewise.")] = None,
    roll: Annotated[list[str] | None, option("Roll in degrees, -90 to 90, positive clockwise; likewise.")] = None,
    driving: Annotated[
        list[str] | None,
        option(
            "Photo of anybody whose expression and pose are taken, in the place of --face-prompt; FILE#2: its second "
            'face. One per person, "": none.',
            metavar="FILE",
        ),
    ] = None,
    into: Annotated[
        str | None,
        option(
            "A picture of any size, and the box (0 to 1) of the head, with its hair, that is painted anew in it.",
            metavar="FILE@y0,x0,y1,x1",
        ),
    ] = None,
    adapter: AdapterChoice = None,
    negative_prompt: Annotated[str | None, option("What the picture must not show.")] = None,
    seed: Annotated[int, option("Random seed; the same seed gives the same picture.", min=0, max=2**63 - 1)] = 0,
    number: Annotated[int, option("Number of pictures, with seeds from --seed on.", min=1, max=1000)] = 1,
    width: Annotated[int | None, option("Width in pixels; by default what the base knows best.", min=32)] = None,
    height: Annotated[int | None, option("Height in pixels, likewise.", min=32)] = None,
    sampler: Annotated[
        str | None,
        option("ddim, dpm (DPM-Solver++), euler or lcm (consistency models, few steps); by default that of the base."),
    ] = None,
    steps: Annotated[int | None, option("Denoising steps; default: serve.steps.", min=1, max=1000)] = None,
    guidance: Annotated[float | None, option("Guidance scale; default: evaluate.guidance.", min=0)] = None,
    scale: Annotated[float, option("Strength of the identity; at 0 the references have no effect.")] = 1.0,
    gate_map: Annotated[
        Path | None, option("Also write the gate: a grey picture of where the identity takes effect.", metavar="FILE")
    ] = None,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Generate a picture of the reference people from a prompt, with the expressions and poses of the face prompts."""
    params = read_params(file, overrides)
    from pipelines.registry.loading import choose_adapter
    from pipelines.serving.generation import Generator
    from pipelines.serving.motion_request import motions_of
    from pipelines.serving.request import DrawRequest, Reference

    people = [split_reference(text) for text in reference]
    drivers = [_photo(text) if text else None for text in driving or ()]
    faces = [tuple(face for _, face in photos) for photos, _ in people]
    boxes = [box for _, box in people]
    for target in (out, gate_map):
        if target is not None and target.suffix.lower() not in _FORMATS:
            suffix = target.suffix or "no extension"
            raise UserError(f"{target}: {suffix} is not a picture format; use .png, .jpg or .webp")
    request = DrawRequest(
        references=tuple(
            tuple(Reference(str(photo), _read(photo, text)) for photo, _ in photos)
            for text, (photos, _) in zip(reference, people, strict=True)
        ),
        prompt=prompt,
        face_prompts=tuple(face_prompt or ()),
        boxes=tuple(box for box in boxes if box is not None),
        faces=tuple(faces) if any(face for own in faces for face in own) else (),
        width=width,
        height=height,
        number=number,
        sampler=sampler,
        seed=seed,
        negative_prompt=negative_prompt,
        steps=steps,
        guidance=guidance,
        scale=scale,
        motions=motions_of({"strength": strength, "yaw": yaw, "pitch": pitch, "roll": roll}, len(people)),
        driving=tuple(
            None if one is None else Reference(str(one[0]), _read(one[0], str(one[0]), "--driving")) for one in drivers
        ),
        **_given(into, gate_map),
        driving_faces=tuple(one and one[1] for one in drivers) if any(one and one[1] for one in drivers) else (),
    )
    for text in request.face_prompts:
        _report_unnamed(text)
    chosen = choose_adapter(adapter, params, Path.cwd(), overrides or ())
    for target in filter(None, (out, gate_map)):  # before the work, which would be lost
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{target}: the folder {target.parent} cannot be made ({error.strerror})") from None
        if target.is_dir():
            raise UserError(f"{target}: a folder; expected the name of a picture file")
    generator = Generator.load(chosen.folder, chosen.params)
    taken = steps or generator.sampling.steps
    say(f"generate: drawing with {chosen.origin}, in {counted(taken, 'step')}")
    made = []
    for turn, one in enumerate(request.pictures(), 1):
        drawn = generator.draw(one, gate_map=gate_map is not None)
        if drawn.note and turn == 1:
            warn(drawn.note)
        files = {"picture": (out, drawn.image)}
        if gate_map is not None:
            files["gate_map"] = (gate_map, _grey(drawn.gate_map, drawn.image.size))
        shown: dict[str, str | int] = {"seed": one.seed}
        for name, (target, picture) in files.items():
            file = target if number == 1 else target.with_stem(f"{target.stem}-{turn}")
            picture.save(file)
            shown[name] = str(file)
        made.append(shown)
    drawn_with = {"adapter": str(chosen.folder), "adapter_origin": chosen.origin, "steps": taken}
    emit({**(made[0] if number == 1 else {"pictures": made}), **drawn_with, **generator.other_base})


def split_reference(text: str, name_of_option: str = "--reference") -> tuple[list[tuple[Path, int | None]], Box | None]:
    """Split `a.jpg#2+b.jpg@y0,x0,y1,x1` into the files of a person, each with its face from the left, and the box.

    Both are None where they are not given. Names may hold +, # and @: what exists as a file is one.
    """
    name, at, numbers = text.rpartition("@")
    box = None
    if not at or Path(text).exists():
        name = text
    else:
        try:
            y0, x0, y1, x1 = (float(number) for number in numbers.split(","))
        except ValueError:
            raise UserError(
                f"{name_of_option} {text}: no such file, and {numbers!r} is not a box y0,x0,y1,x1"
            ) from None
        box = (y0, x0, y1, x1)
    photos, rest = [], name.split("+")
    while rest:
        # The longest name that is a file, else up to the next +.
        ends = [end for end in range(len(rest), 0, -1) if _photo("+".join(rest[:end]))[0].exists()]
        end = ends[0] if ends else 1
        photos.append(_photo("+".join(rest[:end])))
        rest = rest[end:]
    return photos, box


def _given(into: str | None, gate_map: Path | None) -> dict[str, Any]:
    """Return the picture to paint into and the box, of a request; nothing without one."""
    from pipelines.serving.request import Reference

    if into is None:
        return {}
    photos, box = split_reference(into, "--into")
    if len(photos) != 1 or photos[0][1] is not None or box is None:
        raise UserError(f"--into {into}: expected FILE@y0,x0,y1,x1, one picture and the box of a head in it")
    if gate_map is not None:
        raise UserError("--gate-map: its map would be that of the painted part; leave it out with --into")
    return {"into": Reference(str(photos[0][0]), _read(photos[0][0], into, "--into")), "area": box}


def _photo(name: str) -> tuple[Path, int | None]:
    """Return the file, and the number of the face in `photo.jpg#2`."""
    file, sign, face = name.rpartition("#")
    if not sign or Path(name).exists() or not face.isascii() or not face.isdecimal():
        return Path(name), None
    return Path(file), int(face)


def _read(photo: Path, text: str, name: str = "--reference") -> bytes:
    if not photo.is_file():
        whole = "" if text.startswith(str(photo)) and "+" not in text else f" (in {text})"
        raise UserError(f"{name} {photo}: no such file{whole}; expected a photo of one person")
    return photo.read_bytes()


def _report_unnamed(face_prompt: str) -> None:
    """Print whether a face prompt names no expression or no pose, for example because of an unknown word."""
    motion = parse(face_prompt)
    for part, words, named in (
        ("expression", EXPRESSIONS, motion.expression),
        ("pose", POSE_PHRASES.values(), motion.pose),
    ):
        if face_prompt and named is None:
            say(f"generate: {face_prompt!r} names no {part} ({', '.join(words)}): it stays that of the reference")


def _grey(gate: Any, size: tuple[int, int]) -> Any:
    import numpy as np
    from PIL import Image

    grey = (np.clip(gate, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(grey).resize(size, Image.Resampling.NEAREST)

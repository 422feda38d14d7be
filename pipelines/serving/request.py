"""A checked request for one picture: from a row sent over HTTP (`read_row`) or from local photos (`read_request`)."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

from model.face.face import MAX_REFERENCES
from model.face.face_prompts import parse_request
from model.face.target_motion import TargetMotion
from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.core.sections.section import Sampler
from pipelines.core.words import counted
from pipelines.serving.motion_request import COLUMNS as MOTION
from pipelines.serving.motion_request import check_motions, described, listed, motions_of

Box = tuple[float, float, float, float]

REQUIRED = ("references", "prompt")
# Versions registered before there were the others ask for the columns of this name: it never grows.
OPTIONAL = ("face_prompts", "boxes", "seed", "faces", "negative_prompt", "width", "height", "number", "sampler")
COLUMNS = (*OPTIONAL, *MOTION)
_MEGABYTE = 2**20
# What versions take that were registered before there were the others: MLflow drops unknown columns in silence.
FORMER = OPTIONAL[:3]
_OF_SAMPLING = ("negative_prompt", "width", "height", "number", "sampler")
MAX_TEXT = 2_000
_MAX_SEED = 2**63 - 1
_DATA_URL = re.compile(r"data:[^,;]{0,100}(;[^,;]{0,100}){0,4};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
# Above these a picture is noise.
MAX_GUIDANCE, MAX_SCALE = 30.0, 2.0
SAMPLERS: tuple[str, ...] = get_args(Sampler)
# Sides in pixels; the base decides how much larger than its own pictures may be.
_SIDES = (32, 4096)


class Reference(NamedTuple):
    """An encoded photo of one person, and its name in error messages."""

    name: str
    photo: bytes


References = Reference | tuple[Reference, ...]
"""The reference of one person, or several of one person."""
FaceNumber = int | None


@dataclass(frozen=True)
class DrawRequest:
    """A request for one picture; where it cannot be drawn, creating it raises UserError that names what to change.

    `references`: one per person, or a tuple of up to MAX_REFERENCES; `face_prompts`: none, or one per person (an empty
    one keeps the reference's expression and pose); `boxes`: none, or one per person as (y0, x0, y1, x1) in [0, 1];
    `faces`: none, or for each reference, in tuples as they are, the number of the face that is meant, from the left, or
    None where it shows one; for several, None stands for one each. `number` pictures have seeds from
    `seed` on. `steps`, `guidance`, `sampler`, `width`, `height`: None for the values of parameters and base.
    `motions`, `driving`, `driving_faces`: none, or one per person: what is asked beyond a face prompt, the photo whose
    expression and pose are taken, and the number of the face in it that is meant; None for nothing.
    `into`, `area`: a given picture of any size, and the box in it in which the one person's head is painted.
    """

    references: tuple[References, ...]
    prompt: str
    face_prompts: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    seed: int = 0
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    scale: float = 1.0
    faces: tuple[FaceNumber | tuple[FaceNumber, ...], ...] = ()
    width: int | None = None
    height: int | None = None
    number: int = 1
    sampler: str | None = None
    motions: tuple[TargetMotion | None, ...] = ()
    driving: tuple[Reference | None, ...] = ()
    driving_faces: tuple[FaceNumber, ...] = ()
    into: Reference | None = None
    area: Box | None = None

    @property
    def people(self) -> list[list[tuple[Reference, FaceNumber]]]:
        """The references of each person, with the numbers of the faces that are meant."""
        sets = [(one,) if isinstance(one, Reference) else one for one in self.references]
        meant = self.faces or (None,) * len(sets)
        numbers = [one if isinstance(one, tuple) else (one,) * len(own) for one, own in zip(meant, sets, strict=True)]
        return [list(zip(own, found, strict=True)) for own, found in zip(sets, numbers, strict=True)]

    @property
    def drivers(self) -> list[tuple[Reference, FaceNumber] | None]:
        """The driving photo of each person with the number of the face that is meant, None for none."""
        faces = self.driving_faces or (None,) * len(self.driving)
        return [None if one is None else (one, face) for one, face in zip(self.driving, faces, strict=True)]

    @property
    def asked(self) -> tuple[str, ...]:
        """What was asked of the face of each person, in words; "" for nothing."""
        nothing = (None,) * len(self.references)
        motions, driving = self.motions or nothing, self.driving or nothing
        return tuple(map(described, self.face_prompts or nothing, motions, driving))

    def pictures(self) -> list[DrawRequest]:
        """Return the request of each of the `number` pictures."""
        return [replace(self, seed=self.seed + turn, number=1) for turn in range(self.number)]

    def __post_init__(self) -> None:
        """Check everything except the photos."""
        people = len(self.references)
        if not people:
            raise UserError("no reference photo: give at least one")
        for what, given in (
            ("face prompt", self.face_prompts),
            ("box", self.boxes),
            ("face", self.faces),
            ("motion", self.motions),
            ("driving photo", self.driving),
            ("driving face", self.driving_faces),
        ):
            if given and len(given) != people:
                number = counted(len(given), what, "boxes" if what == "box" else "")
                raise UserError(f"{number} for {counted(people, 'person', 'people')}: give none or one per person")
        for row, own in enumerate(self.references):
            _check_set(own, self.faces[row] if self.faces else None, row + 1)
        for text in filter(None, self.face_prompts):
            try:
                parse_request(text)
            except ValueError as error:
                raise UserError(str(error)) from None
        check_motions(self.motions, self.driving, self.driving_faces, self.face_prompts)
        self._check_sampling()
        if (self.into is None) != (self.area is None):
            raise UserError("a given picture and the box to paint: expected both, or none")
        if self.into is not None and (people > 1 or self.boxes or self.width or self.height):
            raise UserError(
                f"{self.into.name}: one person is painted into a given picture, in its own size; leave out other "
                "references, their boxes, width and height"
            )
        for y0, x0, y1, x1 in (*self.boxes, *filter(None, [self.area])):
            shown = f"box {y0:g},{x0:g},{y1:g},{x1:g}"
            if not all(0 <= edge <= 1 for edge in (y0, x0, y1, x1)):
                raise UserError(f"{shown}: expected y0,x0,y1,x1 between 0 and 1")
            if y1 <= y0 or x1 <= x0:
                raise UserError(f"{shown}: it has no area; expected y0 < y1 and x0 < x1")

    def _check_sampling(self) -> None:
        if self.sampler not in (None, *SAMPLERS):
            raise UserError(f"sampler {self.sampler}: expected one of {', '.join(SAMPLERS)}")
        for name, side in (("width", self.width), ("height", self.height)):
            low, high = _SIDES
            if side is not None and not (low <= side <= high and side % 8 == 0):
                raise UserError(f"{name} {side}: expected a multiple of 8 from {low} to {high} pixels")
        if self.number < 1 or self.seed + self.number - 1 > _MAX_SEED:
            raise UserError(f"number {self.number}: expected at least 1, with seeds from {self.seed} to {_MAX_SEED}")
        numbers = [*self.driving_faces, *(face for person in self.people for _, face in person)]
        if any(face is not None and face < 1 for face in numbers):
            raise UserError(f"faces {', '.join(map(str, numbers))}: faces are counted from the left, from 1 on")
        for name, number in (("guidance", self.guidance), ("scale", self.scale)):
            if number is not None and not math.isfinite(number):
                raise UserError(f"{name} {number}: expected a finite number")


def read_row(row: Mapping[str, Any], limits: Serve) -> DrawRequest:
    """Return the request of one row; raise UserError on the first wrong value, naming what was expected.

    `references`: base64 pictures, one per person, or a list of several of one person; `prompt`: text; optionally
    `face_prompts` and `boxes` (y0, x0, y1, x1 in [0, 1]), one per person; `faces` (0: the only one), as `references`;
    `seed`, a whole number from 0; `negative_prompt`; `width` and `height` in pixels, 0 for the base's; `number` of
    pictures; `sampler`, ddim, dpm, euler or lcm; one per person: `strength`, `yaw`, `pitch`, `roll`, numbers or None,
    `driving`, base64 pictures or "", `driving_faces`, 0 for the only one.
    """
    check_columns(row)
    encoded = listed(row["references"], "references")
    if not encoded:
        raise UserError("references: empty; give one base64 picture per person")
    if len(encoded) > limits.max_people:
        raise UserError(f"references: {len(encoded)} people; at most {limits.max_people}")
    driving = listed(row.get("driving"), "driving")
    if len(driving) > limits.max_people:
        raise UserError(f"driving: {len(driving)} photos; at most {limits.max_people}, one per person")
    photos = ((f"driving photo of person {n}", one) for n, one in enumerate(driving, 1))
    return read_request(
        (_person(one, n, limits) for n, one in enumerate(encoded, 1)),
        row,
        limits,
        driving=(Reference(name, _decoded(one, name, limits)) if one else None for name, one in photos),
    )


def read_request(
    references: Iterable[References],
    texts: Mapping[str, Any],
    limits: Serve,
    *,
    driving: Iterable[Reference | None] = (),
    **sampling: Any,
) -> DrawRequest:
    """Return the request for photos and the other columns of a row; raises as `read_row`.

    `driving`: none, or one photo per person, None for no photo.
    Photos are read one after another up to the first bad one. `sampling` may hold `negative_prompt`, `steps`,
    `guidance` and `scale`, as the request names them; None for the parameters' values.
    """
    checked = []
    for reference in references:
        for one in (reference,) if isinstance(reference, Reference) else reference:
            _check_picture(one, limits)
        checked.append(reference)
    drivers = []
    for photo in driving:
        if photo is not None:
            _check_picture(photo, limits)
        drivers.append(photo)
    driving_faces = tuple(map(_face, listed(texts.get("driving_faces"), "driving_faces")))
    return DrawRequest(
        references=tuple(checked),
        prompt=_text(texts["prompt"], "prompt"),
        face_prompts=tuple(
            _text("" if text is None else text, f"face prompt {n}")
            for n, text in enumerate(listed(texts.get("face_prompts"), "face_prompts"), 1)
        ),
        boxes=tuple(_box(box, f"box {n}") for n, box in enumerate(listed(texts.get("boxes"), "boxes"), 1)),
        faces=_faces(texts.get("faces")),
        seed=read_seed(texts.get("seed")),
        motions=motions_of(texts, len(checked)),
        driving=tuple(drivers) if any(drivers) else (),
        driving_faces=driving_faces if any(driving_faces) else (),
        **_sampling({**{name: texts.get(name) for name in _OF_SAMPLING}, **sampling}, limits),
    )


def _check_set(references: References, faces: Any, number: int) -> None:
    """Raise UserError where person `number` has no reference or too many, or another number of `faces` than these."""
    if isinstance(references, Reference):
        if isinstance(faces, tuple):
            raise UserError(f"faces of person {number}: a list, but there is one reference; expected a number")
        return
    if not 1 <= len(references) <= MAX_REFERENCES:
        raise UserError(f"person {number}: {counted(len(references), 'reference')}; expected 1 to {MAX_REFERENCES}")
    if faces is not None and (not isinstance(faces, tuple) or len(faces) != len(references)):
        given = counted(len(faces) if isinstance(faces, tuple) else 1, "face")
        raise UserError(f"person {number}: {given} for {counted(len(references), 'reference')}; give one per reference")


def _person(encoded: Any, number: int, limits: Serve) -> References:
    """Return the decoded references of a person: of a text, or of a list of texts."""
    listed = encoded.tolist() if hasattr(encoded, "tolist") else encoded
    if not isinstance(listed, list | tuple):
        return Reference(f"reference {number}", _decoded(listed, f"reference {number}", limits))
    if len(listed) > MAX_REFERENCES:
        raise UserError(f"person {number}: {len(listed)} references; expected 1 to {MAX_REFERENCES}")
    names = [f"reference {n} of person {number}" for n in range(1, len(listed) + 1)]
    return tuple(Reference(name, _decoded(text, name, limits)) for name, text in zip(names, listed, strict=True))


def _faces(value: Any) -> tuple[FaceNumber | tuple[FaceNumber, ...], ...]:
    """Return the number of the face of each reference; None, or 0, where it is the only one."""
    faces = [
        tuple(map(_face, listed(one, "faces")))
        if isinstance(one, list | tuple) or hasattr(one, "tolist")
        else _face(one)
        for one in listed(value, "faces")
    ]
    return tuple(faces) if any(any(one) if isinstance(one, tuple) else one for one in faces) else ()


def _face(value: Any) -> FaceNumber:
    if _absent(value):
        return None
    if not _number(value) or value != int(value) or value < 0:
        raise UserError("faces: expected a whole number per reference, from the left from 1 on; 0: the only face")
    return int(value) or None


def _sampling(given: Mapping[str, Any], limits: Serve) -> dict[str, Any]:
    """Return the fields that are given; raise UserError where one is out of its range."""
    ranges = {
        "steps": (1, limits.max_steps),
        "number": (1, limits.max_rows),
        "width": _SIDES,
        "height": _SIDES,
        "guidance": (0.0, MAX_GUIDANCE),
        "scale": (0.0, MAX_SCALE),
    }
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in given.items()}
    found = {name: value for name, value in plain.items() if not _absent(value) and value != ""}
    for name in ("negative_prompt", "sampler"):
        if name in found:
            found[name] = _text(found[name], name.replace("_", " "))
    for name, (low, high) in ranges.items():
        if name in ("width", "height", "number") and not found.get(name, 1):
            del found[name]  # 0 in a table of rows, where others have it
        value, whole = found.get(name, low), isinstance(low, int)
        if not _number(value) or not low <= value <= high or (whole and value != int(value)):
            raise UserError(f"{name}: {str(value)[:40]}; expected a number from {low:g} to {high:g}")
        if whole and name in found:
            found[name] = int(value)
    return found


def check_columns(names: Any, optional: Sequence[str] = COLUMNS) -> None:
    """Raise UserError where a column is missing, or unknown to a model that takes the columns `optional`, too."""
    missing = [name for name in REQUIRED if name not in names]
    unknown = sorted(str(name) for name in names if name not in (*REQUIRED, *optional))
    if missing or unknown:
        problems = [f"{name} missing" for name in missing] + [f"unknown column {name[:40]}" for name in unknown]
        raise UserError(f"{', '.join(problems)}; expected {', '.join(REQUIRED)}, and optionally {', '.join(optional)}")


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name}: {type(value).__name__}; expected text")
    if len(value) > MAX_TEXT:
        raise UserError(f"{name}: {len(value)} characters; at most {MAX_TEXT}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name}: half a character (a lone surrogate); expected valid Unicode text") from None
    return value


def _decoded(text: Any, name: str, limits: Serve) -> bytes:
    if not isinstance(text, str):
        raise UserError(f"{name}: {type(text).__name__}; expected a picture as base64 text")
    address = _DATA_URL.match(text)
    if address is None and text[:5].lower() == "data:":
        raise UserError(f"{name}: data: without ;base64; expected a JPEG or PNG picture as base64 text")
    # Programs wrap base64 into lines, leave out its padding, or write it as in an address (RFC 4648, 5).
    plain = "".join(text[address.end() if address else 0 :].split()).translate(_URL_SAFE).rstrip("=")
    if len(plain) > limits.max_upload_mb * _MEGABYTE * 4 / 3 + 4:
        raise UserError(f"{name}: more than {limits.max_upload_mb} MB; send a smaller picture")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{name}: not base64; expected a JPEG or PNG picture as base64 text") from None


def _check_picture(reference: Reference, limits: Serve) -> None:
    """Raise UserError on bytes that are not a picture within the limits; reads the header only."""
    from pipelines.data.ingest.header import read_header

    name, data = reference
    if len(data) > limits.max_upload_mb * _MEGABYTE:
        raise UserError(f"{name}: more than {limits.max_upload_mb} MB; send a smaller picture")
    header = read_header(data)
    if header is None:
        raise UserError(f"{name}: no picture in it; expected a JPEG or PNG")
    if header.width * header.height > limits.max_pixels:
        raise UserError(f"{name}: {header.width}x{header.height} pixels; at most {limits.max_pixels:,}")


def _box(values: Any, name: str) -> Box:
    edges = listed(values, name)
    if len(edges) != 4 or not all(_number(edge) for edge in edges):
        raise UserError(f"{name}: expected four numbers y0, x0, y1, x1 in [0, 1]")
    y0, x0, y1, x1 = (float(edge) for edge in edges)
    return y0, x0, y1, x1


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number of JSON may have thousands of digits, which no float can hold.
    return abs(value) <= 2**64 if isinstance(value, int) else math.isfinite(value)


def read_seed(value: Any) -> int:
    """Return the seed, 0 where it is absent; raise UserError for anything but a whole number from 0."""
    if _absent(value):
        return 0
    if hasattr(value, "item"):
        value = value.item()
    if not _number(value) or value != int(value) or not 0 <= value <= _MAX_SEED:
        raise UserError(f"seed: {str(value)[:40]}; expected a whole number from 0 to {_MAX_SEED}")
    return int(value)

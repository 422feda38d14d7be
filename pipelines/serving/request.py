"""A checked request for one picture: from a row sent over HTTP (`read_row`) or from local photos (`read_request`)."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, parse
from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve

Box = tuple[float, float, float, float]

REQUIRED = ("references", "prompt")
OPTIONAL = ("face_prompts", "boxes", "seed")
_MEGABYTE = 2**20
MAX_TEXT = 2_000
_MAX_SEED = 2**63 - 1
_DATA_URL = re.compile(r"data:[^,;]{0,100}(;[^,;]{0,100}){0,4};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
# Above these a picture is noise.
MAX_GUIDANCE, MAX_SCALE = 30.0, 2.0


class Reference(NamedTuple):
    """An encoded photo of one person, and its name in error messages."""

    name: str
    photo: bytes


@dataclass(frozen=True)
class DrawRequest:
    """A request for one picture; where it cannot be drawn, creating it raises UserError that names what to change.

    `references`: one per person; `face_prompts`: none, or one per person (an empty one keeps the reference's expression
    and pose); `boxes`: none, or one per person as (y0, x0, y1, x1) in [0, 1]; `steps`, `guidance`: None for the
    parameters' values.
    """

    references: tuple[Reference, ...]
    prompt: str
    face_prompts: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    seed: int = 0
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check everything except the photos."""
        people = len(self.references)
        if not people:
            raise UserError("no reference photo: give at least one")
        for what, given in (("face prompts", self.face_prompts), ("boxes", self.boxes)):
            if given and len(given) != people:
                raise UserError(f"{len(given)} {what} for {people} people: give none or one per reference")
        for text in self.face_prompts:
            motion = parse(text)
            if text and motion.expression is None and motion.pose is None:
                raise UserError(
                    f"face prompt {text!r} names no expression ({', '.join(EXPRESSIONS)}) and no pose "
                    f"({', '.join(POSE_PHRASES.values())})"
                )
        for name, number in (("guidance", self.guidance), ("scale", self.scale)):
            if number is not None and not math.isfinite(number):
                raise UserError(f"{name} {number}: expected a finite number")
        for y0, x0, y1, x1 in self.boxes:
            shown = f"box {y0:g},{x0:g},{y1:g},{x1:g}"
            if not all(0 <= edge <= 1 for edge in (y0, x0, y1, x1)):
                raise UserError(f"{shown}: expected y0,x0,y1,x1 between 0 and 1")
            if y1 <= y0 or x1 <= x0:
                raise UserError(f"{shown}: it has no area; expected y0 < y1 and x0 < x1")


def read_row(row: Mapping[str, Any], limits: Serve) -> DrawRequest:
    """Return the request of one row; raise UserError on the first wrong value, naming what was expected.

    `references`: base64 pictures, one per person; `prompt`: text; optionally `face_prompts` and `boxes` (y0, x0, y1, x1
    in [0, 1]), one per reference, and `seed`, a whole number from 0.
    """
    check_columns(row)
    encoded = _listed(row["references"], "references")
    if not encoded:
        raise UserError("references: empty; give one base64 picture per person")
    if len(encoded) > limits.max_people:
        raise UserError(f"references: {len(encoded)} people; at most {limits.max_people}")
    named = ((f"reference {n}", text) for n, text in enumerate(encoded, 1))
    return read_request((Reference(name, _decoded(text, name, limits)) for name, text in named), row, limits)


def read_request(
    references: Iterable[Reference], texts: Mapping[str, Any], limits: Serve, **sampling: Any
) -> DrawRequest:
    """Return the request for photos and the other columns of a row; raises as `read_row`.

    Photos are read one after another up to the first bad one. `sampling` may hold `negative_prompt`, `steps`,
    `guidance` and `scale`, as the request names them; None for the parameters' values.
    """
    checked = []
    for reference in references:
        _check_picture(reference, limits)
        checked.append(reference)
    return DrawRequest(
        references=tuple(checked),
        prompt=_text(texts["prompt"], "prompt"),
        face_prompts=tuple(
            _text("" if text is None else text, f"face prompt {n}")
            for n, text in enumerate(_listed(texts.get("face_prompts"), "face_prompts"), 1)
        ),
        boxes=tuple(_box(box, f"box {n}") for n, box in enumerate(_listed(texts.get("boxes"), "boxes"), 1)),
        seed=read_seed(texts.get("seed")),
        **_sampling(sampling, limits),
    )


def _sampling(given: Mapping[str, Any], limits: Serve) -> dict[str, Any]:
    """Return the fields that are given; raise UserError where one is out of its range."""
    found = {name: value for name, value in given.items() if not _absent(value) and value != ""}
    if "negative_prompt" in found:
        found["negative_prompt"] = _text(found["negative_prompt"], "negative prompt")
    for name, low, high in (("steps", 1, limits.max_steps), ("guidance", 0.0, MAX_GUIDANCE), ("scale", 0.0, MAX_SCALE)):
        value = found.get(name, low)
        if not _number(value) or not low <= value <= high or (name == "steps" and value != int(value)):
            raise UserError(f"{name}: {str(value)[:40]}; expected a number from {low:g} to {high:g}")
    if "steps" in found:
        found["steps"] = int(found["steps"])
    return found


def check_columns(names: Any) -> None:
    """Raise UserError where a column is missing or unknown."""
    missing = [name for name in REQUIRED if name not in names]
    unknown = sorted(str(name) for name in names if name not in (*REQUIRED, *OPTIONAL))
    if missing or unknown:
        problems = [f"{name} missing" for name in missing] + [f"unknown column {name[:40]}" for name in unknown]
        raise UserError(f"{', '.join(problems)}; expected {', '.join(REQUIRED)}, and optionally {', '.join(OPTIONAL)}")


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _listed(value: Any, name: str) -> list[Any]:
    if _absent(value):
        return []
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"{name}: {type(value).__name__}; expected a list with one entry per person")
    return list(value)


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
    edges = _listed(values, name)
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

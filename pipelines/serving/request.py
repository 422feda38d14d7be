"""One row of a scoring request → one picture to draw. Everything a stranger may send is checked here, in words."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.serving.generation import Request, check_request

REQUIRED = ("references", "prompt")
OPTIONAL = ("face_prompts", "boxes", "seed")
_MEGABYTE = 2**20
_MAX_TEXT = 2_000
_MAX_SEED = 2**63 - 1


def read_row(row: Mapping[str, Any], limits: Serve) -> Request:
    """Return the request of one row; UserError on the first thing that cannot be drawn, saying what was expected.

    `references`: base64 pictures, one a person; `prompt`: text; and, where given, `face_prompts` and `boxes` (y0, x0,
    y1, x1 in [0, 1]), one per reference, and `seed`, a whole number from 0.
    """
    check_columns(row)
    encoded = _listed(row["references"], "references")
    check_people(len(encoded), limits)
    pictures = (_decoded(text, f"reference {n}", limits) for n, text in enumerate(encoded, 1))
    return read_request(pictures, row, limits)


def read_request(
    pictures: Iterable[bytes], texts: Mapping[str, Any], limits: Serve, names: Sequence[str] = ()
) -> Request:
    """Return the request for encoded `pictures`, one a person, and the other columns of a row; UserError as there.

    `names` is what errors call the pictures, "reference 1" and so on by default.
    """
    references = []
    for n, data in enumerate(pictures, 1):
        check_picture(data, names[n - 1] if names else f"reference {n}", limits)
        references.append(data)
    check_people(len(references), limits)
    request = Request(
        references=tuple(references),
        prompt=_text(texts["prompt"], "prompt"),
        face_prompts=tuple(
            _text("" if text is None else text, f"face prompt {n}")
            for n, text in enumerate(_listed(texts.get("face_prompts"), "face_prompts"), 1)
        ),
        boxes=tuple(_box(box, f"box {n}") for n, box in enumerate(_listed(texts.get("boxes"), "boxes"), 1)),
        names=tuple(names),
        seed=read_seed(texts.get("seed")),
    )
    check_request(request)
    return request


def check_people(count: int, limits: Serve) -> None:
    """Raise UserError unless there is somebody to draw, and no more than may be in one picture."""
    if not count:
        raise UserError("references: empty; give one base64 picture per person")
    if count > limits.max_people:
        raise UserError(f"references: {count} people; at most {limits.max_people}")


def check_columns(names: Any) -> None:
    """Raise UserError where a column is missing or none of ours."""
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
    if len(value) > _MAX_TEXT:
        raise UserError(f"{name}: {len(value)} characters; at most {_MAX_TEXT}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name}: half a character (a lone surrogate); expected valid Unicode text") from None
    return value


def _decoded(text: Any, name: str, limits: Serve) -> bytes:
    """Decode base64 that is not longer than a picture may be."""
    if not isinstance(text, str):
        raise UserError(f"{name}: {type(text).__name__}; expected a picture as base64 text")
    if len(text) > limits.max_upload_mb * _MEGABYTE * 4 / 3 + 4:
        raise UserError(f"{name}: more than {limits.max_upload_mb} MB; send a smaller picture")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{name}: not base64; expected a JPEG or PNG picture as base64 text") from None


def check_picture(data: bytes, name: str, limits: Serve) -> None:
    """Raise UserError on bytes that are no picture within the limits; only the header is read, nothing is unpacked."""
    from PIL import Image

    if len(data) > limits.max_upload_mb * _MEGABYTE:
        raise UserError(f"{name}: more than {limits.max_upload_mb} MB; send a smaller picture")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise UserError(f"{name}: too many pixels; at most {limits.max_pixels:,}") from None
    except Exception:  # a damaged header may raise almost anything
        raise UserError(f"{name}: no picture in it; expected a JPEG or PNG") from None
    if width * height > limits.max_pixels:
        raise UserError(f"{name}: {width}x{height} pixels; at most {limits.max_pixels:,}")


def _box(values: Any, name: str) -> tuple[float, float, float, float]:
    edges = _listed(values, name)
    if len(edges) != 4 or not all(_number(edge) for edge in edges):
        raise UserError(f"{name}: expected four numbers y0, x0, y1, x1 in [0, 1]")
    y0, x0, y1, x1 = (float(edge) for edge in edges)
    return y0, x0, y1, x1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_seed(value: Any) -> int:
    """Return a seed, 0 where there is none; UserError for anything but a whole number from 0."""
    if _absent(value):
        return 0
    if hasattr(value, "item"):
        value = value.item()
    if not _number(value) or value != int(value) or not 0 <= value <= _MAX_SEED:
        raise UserError(f"seed: {str(value)[:40]}; expected a whole number from 0 to {_MAX_SEED}")
    return int(value)

"""Malformed requests to the served model, all of which must be refused."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

JSON = "application/json"


class Malformed(NamedTuple):
    """What is wrong, the Content-Type (None: no header), and the body."""

    what: str
    content_type: str | None
    body: bytes


def malformed_requests(photo: bytes, count: int) -> list[Malformed]:
    """Return `count` requests that must be refused; `photo` is a file that would be accepted."""
    requests = [*_of_transport(photo), *_of_shape(photo), *_of_values(photo)]
    if len(requests) < count:
        raise ValueError(f"{count} malformed requests: only {len(requests)} are defined")
    return requests[:count]


def _row(photo: bytes, **changes: Any) -> dict[str, Any]:
    row = {"references": [base64.b64encode(photo).decode()], "prompt": "a photo", "seed": 1, **changes}
    return {name: value for name, value in row.items() if value != "ABSENT"}


def _sent(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def _of_transport(photo: bytes) -> Iterator[Malformed]:
    good = _sent({"dataframe_records": [_row(photo)]})
    for kind in (None, "text/plain", "text/csv", "application/xml", "multipart/form-data", "", "json", "image/png"):
        yield Malformed(f"content type {kind!r}", kind, good)
    yield Malformed("another charset", "application/json; charset=latin-1", good)
    yield Malformed("an unknown parameter", "application/json; profile=x", good)
    for name, body in (
        ("nothing", b""),
        ("no JSON", b"hello"),
        ("half of it", good[: len(good) // 2]),
        ("bytes that are not UTF-8", b"\xff\xfe\x00{"),
        ("the photo itself", photo),
        ("a NUL", b"\0"),
        ("deep nesting", b"[" * 100_000 + b"]" * 100_000),
        ("deep nesting in a row", b'{"dataframe_records":' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        ("two objects", good + good),
        ("UTF-16", good.decode().encode("utf-16")),
        ("many small values", b'{"inputs": [' + b"[]," * 100_000 + b"[]]}"),
        ("a number of 10,000 digits", b'{"dataframe_records": ' + b"9" * 10_000 + b"}"),
    ):
        yield Malformed(name, JSON, body)


def _of_shape(photo: bytes) -> Iterator[Malformed]:
    row = _row(photo)
    for payload in (None, True, 3, "text", [], [row], {}, {"row": row}, {"predictions": [row]}, row):
        yield Malformed(f"payload {str(payload)[:30]}", JSON, _sent(payload))
    yield Malformed("two shapes", JSON, _sent({"dataframe_records": [row], "inputs": [row]}))
    yield Malformed("a chat", JSON, _sent({"messages": [{"role": "user", "content": "draw"}]}))
    for shape in ("dataframe_records", "dataframe_split", "inputs", "instances"):
        tables: tuple[Any, ...] = (None, 3, "text", [], {}, [3], [None], [[1, 2]], [{}], {"a": 1})
        for table in tables:
            yield Malformed(f"{shape}: {table!r}", JSON, _sent({shape: table}))
    split: tuple[dict[str, Any], ...] = (
        {"columns": ["references", "prompt"], "data": [[row["references"]]]},
        {"columns": ["references", "prompt"], "data": 3},
        {"columns": [1, 2], "data": [[1, 2]]},
        {"columns": "prompt", "data": [["x"]]},
    )
    for table in split:
        yield Malformed(f"split {str(table)[:60]}", JSON, _sent({"dataframe_split": table}))


def _of_values(photo: bytes) -> Iterator[Malformed]:
    text = base64.b64encode(photo).decode()
    changes: list[dict[str, Any]] = [{name: "ABSENT"} for name in ("references", "prompt")]
    changes += [{"face_prompt": "happy"}, {"References": [text]}, {"steps": 10_000}]
    references: tuple[Any, ...] = (None, [], 3, text, [3], [None], [""], ["no base64!"], ["aGVsbG8="], [text] * 5)
    changes += [{"references": value} for value in (*references, [[]], [[[text]]], [[text, 3]], [[text] * 9], [{}])]
    changes += [{"references": [base64.b64encode(data).decode()]} for data in _pictures(photo)]
    prompts: tuple[Any, ...] = (None, 3, [], ["a"], {}, "x" * 100_000, "\ud800", True)
    changes += [{"prompt": value} for value in prompts]
    face_prompts: tuple[Any, ...] = ("happy", ["bored"], ["happy", "sad"], [3], {}, [["happy"]])
    changes += [{"face_prompts": value} for value in face_prompts]
    boxes: list[Any] = [[0, 0, 1], [0, 0, 1, 1, 1], [0, 0, 1.5, 1], [-1, 0, 1, 1], [0.5, 0, 0.5, 1], [1, 1, 0, 0]]
    boxes += [["a", 0, 1, 1], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]]
    changes += [{"boxes": value} for value in (3, [3], {}, [[0, 0, 1, 1]] * 2, *([box] for box in boxes))]
    seeds: tuple[Any, ...] = (-1, 1.5, "one", [], 2**64, 10**40, 10**4200, True)
    changes += [{"seed": value} for value in seeds]
    for change in changes:
        yield Malformed(str(change)[:60], JSON, _sent({"dataframe_records": [_row(photo, **change)]}))
    yield Malformed("many rows", JSON, _sent({"dataframe_records": [_row(photo)] * 50}))
    yield Malformed("one bad row of two", JSON, _sent({"dataframe_records": [_row(photo), _row(photo, prompt=3)]}))


def _pictures(photo: bytes) -> Iterator[bytes]:
    """Yield files that are not a photo of one person."""
    from PIL import Image

    yield photo[: len(photo) // 3]
    yield b"\x89PNG\r\n\x1a\n"
    yield b"GIF89a"
    yield _png(60_000, 60_000)
    yield _png(10_000, 9_000)
    for colour in ("black", "white"):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
        yield buffer.getvalue()
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "JPEG")
    yield buffer.getvalue()


def _png(width: int, height: int) -> bytes:
    """Return a small PNG file whose header states a large size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

"""Malformed calls of the page's API, all of which must be refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.damage import PAGE_DEFAULTS
from benchmarks.malformed_requests import JSON

_FILE = {"_type": "gradio.FileData"}


class Call(NamedTuple):
    """What is wrong, the endpoint, the Content-Type (None: no header), and the body."""

    what: str
    endpoint: str
    content_type: str | None
    body: bytes


def malformed_calls(photo: str, upload: Callable[[bytes], str]) -> Iterator[Call]:
    """Yield calls that must be refused; `photo` is the path of an upload that would be accepted."""
    good = [file_of(photo)]
    yield from _of_transport(good)
    calls: tuple[Any, ...] = (None, 3, "text", {}, [], [good], [good, "x", None, None])
    for data in calls:
        yield Call(f"data {str(data)[:40]!r}", "draw", JSON, _sent(data))
    yield Call("no data", "draw", JSON, b"{}")
    references: tuple[Any, ...] = (None, [], 3, "text", {}, [3], [None], [[]], [{}], [{"path": None}], good * 5)
    for value in (*references, [good[0], None]):
        yield _draw(f"references {str(value)[:40]}", good, references=value)
    for path in ("/etc/passwd", "params.yaml", f"{photo}/../../../../../../etc/passwd", "", "\0", "x" * 5000, "~"):
        yield _draw(f"path {path[:30]!r}", good, references=[file_of(path)])
        yield _draw(f"bare path {path[:30]!r}", good, references=[{"path": path}])
    for address in ("http://127.0.0.1:1/x.png", "https://example.com/x.png", "HTTP://example.com", "data:image/png,x"):
        yield _draw(f"address {address}", good, references=[file_of(address)])
    yield _draw("an inline picture", good, references=[{**file_of(photo), "url": "data:image/png;base64,AAAA"}])
    for what, content in _unusable_files():
        yield _draw(what, good, references=[file_of(upload(content))])
    for name, values in _WRONG.items():
        for value in values:
            yield _draw(f"{name} {str(value)[:40]}", good, **{name: value})


_WRONG: dict[str, tuple[Any, ...]] = {
    "prompt": (None, 3, [], ["a"], {}, "x" * 100_000, True),
    "face_prompts": ("happy", ["bored"], ["happy", "sad"], [3], {}, [["happy"]]),
    "boxes": (3, [3], [[0, 0, 1]], [[0, 0, 1.5, 1]], [[-1, 0, 1, 1]], [[1, 1, 0, 0]], [["a", 0, 1, 1]], {}),
    "seed": (-1, 1.5, "one", [], 2**64, 10**40, True),
}


def file_of(path: Any) -> dict[str, Any]:
    """Return an uploaded file as clients send it."""
    return {"path": path, "meta": _FILE}


def _draw(what: str, good: Any, **changes: Any) -> Call:
    row = {"references": good, "prompt": "a photo", "face_prompts": None, "boxes": None, "seed": 1, **changes}
    return Call(what, "draw", JSON, _sent([*row.values(), *PAGE_DEFAULTS]))


def _sent(data: Any) -> bytes:
    return json.dumps({"data": data}).encode()


def _of_transport(good: Any) -> Iterator[Call]:
    whole = _sent([good, "a photo", None, None, 1, *PAGE_DEFAULTS])
    yield Call("the endpoint of the page's form", "draw_form", JSON, whole)
    for kind in ("text/plain", "text/csv", "application/x-www-form-urlencoded"):
        yield Call(f"content type {kind}", "draw", kind, b"hello")
    for name, body in (
        ("nothing", b""),
        ("no JSON", b"hello"),
        ("half of it", whole[: len(whole) // 2]),
        ("bytes that are not UTF-8", b"\xff\xfe\x00{"),
        ("a list", b"[]"),
        ("deep nesting", b"[" * 100_000 + b"]" * 100_000),
        ("deep nesting in it", b'{"data":' + b"[" * 500 + b"]" * 500 + b"}"),
        ("a number of 10,000 digits", b'{"data": ' + b"9" * 10_000 + b"}"),
    ):
        yield Call(name, "draw", JSON, body)


def _unusable_files() -> Iterator[tuple[str, bytes]]:
    from PIL import Image

    from benchmarks.malformed_requests import _png

    yield "text", b"hello"
    yield "a drawing in SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    yield "half a header", b"\x89PNG\r\n\x1a\n"
    yield "60,000 x 60,000 pixels", _png(60_000, 60_000)
    yield "10,000 x 9,000 pixels", _png(10_000, 9_000)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "PNG")
    yield "a picture without a face", buffer.getvalue()

"""Damaged files from a seed: a good file of every format that is read, and what may happen to its bytes."""

from __future__ import annotations

import base64
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

PICTURES = {
    **{"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "PPM": ".ppm"},
    **{"JPEG2000": ".jp2", "AVIF": ".avif", "HEIF": ".heic"},
}
LABELS = {"json": ".json", "jsonl": ".jsonl", "csv": ".csv", "text": ".txt", "yaml": ".yaml", "zip": ".zip"}
LABELS |= {"arrow": ".arrow", "table": ".parquet"}
SHARDS = {"tar": ".tar", "tar.gz": ".tar.gz", "tar.xz": ".tar.xz", "parquet": ".parquet"}
MODEL = {"params": ".yaml", "config": ".json", "safetensors": ".safetensors", "torch": ".bin"}
BODIES = ("request", "call", "form")
# No longer than this, so that the size of a case says nothing about the memory that it takes.
_MOST_BYTES = 4 * 2**20
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_PIECES: tuple[bytes, ...] = (b"\0", b"\xff" * 8, b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\\u0000", b"\\ud800")
_PIECES += (b"../", b"\x1b[31m", b"\xef\xbb\xbf", b"\r\n\r\n", b"--", b"NaN", b"1e999", b"&a [*a]", b"%s%n", b"'\"")
_PIECES += (b"\xc3\x28", b",,,,")


class Case(NamedTuple):
    """A damaged file: the format it was made from, what was done to it, and its bytes."""

    format: str
    damage: str
    data: bytes


def damaged(seed: int, number: int, formats: tuple[str, ...]) -> Case:
    """Return case `number` of a seed; formats take turns, and the same numbers give the same bytes."""
    draw = random.Random(f"{seed}:{number}")
    kind = formats[number % len(formats)]
    data = good(kind)
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        damage = draw.choice(_DAMAGES)
        data = damage(draw, data)[:_MOST_BYTES]
        done.append(damage.__name__)
    return Case(kind, "+".join(done), data)


@cache
def face() -> bytes:
    """Return the JPEG of a drawn person, 128 x 128 pixels."""
    return _encoded("JPEG")


def _encoded(kind: str) -> bytes:
    from PIL import Image

    from pipelines.data.synthetic.sheet import portrait

    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    Image.fromarray(portrait("damaged", 0, 128)).save(buffer, kind)
    return buffer.getvalue()


@cache
def good(kind: str) -> bytes:
    """Return a file of a format that is read without a fault."""
    if kind in PICTURES:
        return _encoded(kind)
    entry = {"file_name": "photo.jpg", "identity": "anna", "prompt": "a photo", "consent": "yes", "boxes": [[0, 0, 1]]}
    rows = pa.table({"image": [{"bytes": face(), "path": "1.jpg"}] * 3, "identity": ["anna", "bert", None]})
    labels = pa.Table.from_pylist([entry, {**entry, "file_name": "other.jpg"}])
    makers: dict[str, Callable[[], bytes]] = {
        "json": lambda: json.dumps([entry, {**entry, "file_name": "other.jpg"}]).encode(),
        "jsonl": lambda: b"\n".join(json.dumps(entry).encode() for _ in range(3)),
        "csv": lambda: b'file_name,identity,prompt,consent\nphoto.jpg,anna,"a, photo",yes\nother.jpg,bert,,\n',
        "text": "a photo of a person, café\nhappy, turned to the left\n".encode,
        "yaml": lambda: b"photo.jpg:\n  identity: anna\n  consent: yes\n",
        "zip": lambda: _zip({"photo.json": json.dumps(entry).encode()}),
        "arrow": lambda: _ipc(labels),
        "table": lambda: _parquet(labels),
        "parquet": lambda: _parquet(rows),
        "tar": lambda: _tar("w"),
        "tar.gz": lambda: _tar("w:gz"),
        "tar.xz": lambda: _tar("w:xz"),
        **_model_makers(),
        "request": _request,
        "call": lambda: page_call("/uploads/0/photo.jpg"),
        "form": _form,
    }
    return makers[kind]()


def _request() -> bytes:
    row = {"references": [base64.b64encode(face()).decode()], "prompt": "a photo", "face_prompts": ["happy"]}
    return json.dumps({"dataframe_records": [{**row, "boxes": [[0, 0, 1, 1]], "seed": 1}]}).encode()


# After the seed a call of the page's API has faces, negative prompt, size, sampler, and six for motion beyond words.
PAGE_DEFAULTS: tuple[Any, ...] = (None, "", 0, 0, "", *[None] * 6)


def page_call(path: str) -> bytes:
    """Return a call of the page's API that draws the upload at `path`."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return json.dumps({"data": [[file], "a photo", None, None, 1, *PAGE_DEFAULTS]}).encode()


def _form() -> bytes:
    head = b'--damaged\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + face() + b"\r\n--damaged--\r\n"


def _model_makers() -> dict[str, Callable[[], bytes]]:
    from pipelines.core.paths import project_root

    root = project_root()
    adapter = root / "model" / "foundation" / "weights" / "adapter"

    def torch_file() -> bytes:
        import torch

        buffer = io.BytesIO()
        torch.save({"SAA_module": {"0.to_k": torch.zeros(2, 2)}, "proj_module": {"proj.weight": torch.ones(3)}}, buffer)
        return buffer.getvalue()

    return {
        "params": (root / "profiles" / "tiny.yaml").read_bytes,
        "config": (adapter / "config.json").read_bytes,
        "safetensors": (adapter / "adapter.safetensors").read_bytes,
        "torch": torch_file,
    }


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _ipc(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _tar(mode: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in (("1.jpg", face()), ("1.json", b'{"identity": "anna"}'), ("2.jpg", face() + b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _place(draw: random.Random, data: bytes) -> int:
    # Headers and footers are small and matter most.
    reach = draw.choice((min(len(data), 64), min(len(data), 512), len(data)))
    place = draw.randrange(reach + 1)
    return len(data) - place if draw.random() < 0.2 else place


def bits(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[min(_place(draw, data), len(data) - 1)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(draw: random.Random, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def beginning(draw: random.Random, data: bytes) -> bytes:
    return data[_place(draw, data) :]


def gap(draw: random.Random, data: bytes) -> bytes:
    start = _place(draw, data)
    return data[:start] + data[start + draw.choice((1, 4, 16, 256)) :]


def twice(draw: random.Random, data: bytes) -> bytes:
    start, size = _place(draw, data), draw.choice((1, 8, 64, 1024))
    return data[:start] + data[start : start + size] * draw.choice((2, 3, 100)) + data[start:]


def blank(draw: random.Random, data: bytes) -> bytes:
    start, size = _place(draw, data), draw.choice((1, 4, 64, 1024))
    filling = draw.choice((b"\0", b"\xff", b" "))
    return data[:start] + filling * min(size, len(data) - start) + data[start + size :]


def number(draw: random.Random, data: bytes) -> bytes:
    start, size = _place(draw, data), draw.choice((1, 2, 4, 8))
    value = draw.choice(_NUMBERS) & (1 << 8 * size) - 1
    return data[:start] + value.to_bytes(size, draw.choice(("little", "big"))) + data[start + size :]


def piece(draw: random.Random, data: bytes) -> bytes:
    start = _place(draw, data)
    return data[:start] + draw.choice(_PIECES) + data[start:]


def noise(draw: random.Random, data: bytes) -> bytes:
    start = _place(draw, data)
    return data[:start] + draw.randbytes(draw.choice((1, 16, 1000))) + data[start:]


def other(draw: random.Random, data: bytes) -> bytes:
    return data[: _place(draw, data)] + good(draw.choice(("JPEG", "PNG", "json", "tar", "zip")))[_place(draw, data) :]


def encoding(draw: random.Random, data: bytes) -> bytes:
    return data.decode("latin-1").encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "cp037")), "replace")


_DAMAGES = (bits, bits, cut, beginning, gap, twice, blank, number, number, piece, piece, noise, other, encoding)

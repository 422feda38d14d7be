"""Data of the forgotten is detected anywhere in a file; padding is not searched for."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.operations.forgetting import probe as module
from pipelines.operations.forgetting.probe import Probe

SECRET = np.random.default_rng(1).bytes(5000)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 255, 1023, 1024 - 20, 4096])
def test_a_part_is_found_at_any_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1024)
    probe = Probe()
    probe.add(SECRET)
    noise = np.random.default_rng(2)
    (tmp_path / "has").write_bytes(noise.bytes(before) + SECRET[2400:2700] + noise.bytes(777))
    (tmp_path / "has_not").write_bytes(noise.bytes(200_000))
    (tmp_path / "start").write_bytes(SECRET[:1000])
    assert probe.files_with([tmp_path]) == [tmp_path / "has"]


def test_padding_is_not_searched_for(tmp_path: Path) -> None:
    probe = Probe()
    probe.add(bytes(5000))
    probe.add(b"short")
    assert probe.pieces == set()
    (tmp_path / "zeros").write_bytes(bytes(10_000))
    assert probe.files_with([tmp_path]) == []


def drawn(seed: int, format_: str = "JPEG", **options: object) -> bytes:
    """Return a picture of 64 × 64 px, noise in the lower half under a plain upper half."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[32:] = np.random.default_rng(seed).integers(0, 64, (32, 64, 3))
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, format_, **options)
    return made.getvalue()


PROFILE = np.random.default_rng(3).bytes(20_000)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 20}),
        ("JPEG", {"icc_profile": PROFILE}),
        ("JPEG", {"exif": b"Exif\0\0" + PROFILE}),
        ("PNG", {"icc_profile": PROFILE}),
        ("WEBP", {"icc_profile": PROFILE}),
    ],
)
def test_headers_that_other_pictures_have_are_not_searched_for(
    tmp_path: Path, format_: str, options: dict[str, object]
) -> None:
    theirs, other = drawn(1, format_, **options), drawn(2, format_, **options)
    probe = Probe()
    probe.add(theirs)
    for name, picture in (("theirs", theirs), ("other", other)):
        (tmp_path / name).write_bytes(picture)
        for before in range(3):
            page = f"{'x' * before}<img src=data:image/jpeg;base64,{base64.b64encode(picture).decode()}>"
            (tmp_path / f"{name}{before}.html").write_text(page)
    found = {file.name for file in probe.files_with([tmp_path])}
    assert found == {"theirs", "theirs0.html", "theirs1.html", "theirs2.html"}


def test_pieces_that_pictures_of_others_have_are_dropped_but_not_those_of_a_copy() -> None:
    shared, own, rest = SECRET[:2000], SECRET[2000:4000], SECRET[4000:]
    probe = Probe()
    probe.add(shared + own)
    before = set(probe.pieces)
    probe.drop_shared([b"other metadata" + shared + own])
    assert probe.pieces == before
    probe.drop_shared([shared + rest])
    assert len(before) == 3
    assert probe.pieces == {piece for piece in before if piece not in shared + rest}
    assert probe.pieces


@pytest.mark.parametrize(
    "kind",
    ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip", "a.jpg.gz", "b.tar of a.tar.xz", "z.zip of a.tgz"],
)
def test_what_is_packed_is_found_by_its_bytes_and_by_the_hash_of_a_picture(tmp_path: Path, kind: str) -> None:
    picture = b"\xff\xd8\xff" + SECRET
    probe = Probe()
    probe.add(picture)
    for name, body in (("has", picture), ("has_not", b"\xff\xd8\xff" + SECRET[::-1])):
        data, inner = body, "a.jpg"
        for archive in reversed(kind.split(" of ")):
            data, inner = packed(archive, inner, data), archive
        (tmp_path / name).write_bytes(data)
    digest = hashlib.sha256(picture).hexdigest()
    assert probe.files_with([tmp_path]) == [tmp_path / "has"]
    assert Probe().files_with([tmp_path], lambda each: each == digest) == [tmp_path / "has"]
    (tmp_path / "has").write_bytes((tmp_path / "has").read_bytes()[:-40])
    assert len(probe.files_with([tmp_path])) <= 1, "a cut archive is read as far as it can be"


def packed(kind: str, name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    if kind.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
    elif kind.endswith(".jpg.gz"):
        return gzip.compress(data)
    else:
        with tarfile.open(
            fileobj=buffer, mode=f"w:{kind.rpartition('.')[2].replace('tgz', 'gz').replace('tar', '')}"
        ) as tar:
            tar.addfile(member(name, data), io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info


def test_links_and_the_history_are_not_read(tmp_path: Path) -> None:
    probe = Probe()
    probe.add(SECRET)
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    inside = tmp_path / "inside"
    (inside / ".git").mkdir(parents=True)
    (inside / ".git" / "x").write_bytes(SECRET)
    (inside / "link").symlink_to(outside)
    assert probe.files_with([inside]) == []
    assert probe.files_with([inside, tmp_path]) == [outside]

"""The search of the tests finds 64 bytes at any place of any format, and nothing that other pictures have, too."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .windows import WINDOW, Windows, contents

NOISE = np.random.default_rng(5)
HEADER, PICTURE, OTHER = NOISE.bytes(300), NOISE.bytes(3000), NOISE.bytes(3000)
WINDOWS = Windows([HEADER + PICTURE], [HEADER + OTHER])


def packed(kind: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    if kind == "tar.gz":
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            member = tarfile.TarInfo("a.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    elif kind == "npz":
        np.savez_compressed(buffer, a=np.frombuffer(data, np.uint8))
    elif kind == "page":
        return b'<img src="data:image/png;base64,' + base64.b64encode(b"12" + data) + b'">'
    elif kind in ("parquet", "arrow"):
        table = pa.table({"image": pa.array([data, None], pa.binary()), "n": [1, 2]})
        if kind == "parquet":
            pq.write_table(table, buffer, compression="ZSTD")
        else:
            with pa.ipc.new_file(buffer, table.schema) as writer:
                writer.write_table(table)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("inner.gz", gzip.compress(data))
    return buffer.getvalue()


@pytest.mark.parametrize("start", [300, 301, 1111, 3300 - WINDOW])
def test_sixty_four_bytes_are_found_at_any_place_and_sixty_are_not(start: int) -> None:
    piece = (HEADER + PICTURE)[start : start + WINDOW]
    assert WINDOWS.hit(OTHER + piece + OTHER)
    assert not WINDOWS.hit(OTHER + piece[:60] + OTHER)
    assert not WINDOWS.hit(HEADER + OTHER)


@pytest.mark.parametrize("kind", ["tar.gz", "npz", "page", "parquet", "arrow", "zip of gzip"])
def test_it_is_found_inside_every_format(kind: str) -> None:
    assert any(WINDOWS.hit(part) for part in contents(packed(kind, PICTURE[500:900])))
    assert not any(WINDOWS.hit(part) for part in contents(packed(kind, OTHER)))

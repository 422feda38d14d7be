"""Three hundred damaged files are ingested and analysed on Spark: each gets a row and a reason; no worker is lost."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines.core.row_schemas import PROCESSED_SCHEMA, REASONS, read_rows
from tests.pipelines.photos import encoded

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(900)]

# A worker with loaded networks takes about 350 MB; the largest file here decodes to 70 million pixels.
_MEMORY_MB = 1200
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def _bombs(jpeg: bytes) -> dict[str, bytes]:
    """Return files whose headers claim gigabytes of pixels or text."""
    rows = zlib.compressobj(9)
    black = b"".join(rows.compress(bytes(10_001)) for _ in range(7_000)) + rows.flush()
    text = zlib.compress(bytes(200_000_000), 9)
    return {
        "claims_60000.png": _png(60_000, 60_000, _chunk(b"IDAT", zlib.compress(b""))),
        "claims_4_billion.png": _png(2**31 - 1, 2**31 - 1, _chunk(b"IDAT", zlib.compress(b""))),
        "black_70_megapixels.png": _png(10_000, 7_000, _chunk(b"IDAT", black)),
        "long_text.png": _png(64, 64, _chunk(b"zTXt", b"note\0\0" + text), _chunk(b"IDAT", black[:100])),
        "long_profile.png": _png(64, 64, _chunk(b"iCCP", b"p\0\0" + text), _chunk(b"IDAT", black[:100])),
        "wide.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6) + b"\x3b",
        "huge.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 10**6, 10**6, 1, 24, 0, 0, 0, 0, 0, 0),
        "tall.jpg": jpeg.replace(jpeg[(at := jpeg.index(b"\xff\xc0") + 5) : at + 4], b"\xff\xff\xff\xff", 1),
        "tags.tiff": b"II*\0\x08\0\0\0\xff\xff" + b"\x00\x01\x04\0\xff\xff\xff\xff\0\0\0\0" * 200,
        "loop.tiff": b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0",
    }


def _write_damaged(folder: Path, face: Image.Image) -> int:
    """Write the files; return their number."""
    rng = np.random.default_rng(6)
    files: dict[bytes, bytes] = {}
    good = {kind: encoded(face, kind) for kind in _FORMATS}
    suffixes = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp", "TIFF": "tif", "PPM": "ppm"}
    suffixes["JPEG2000"] = "jp2"
    for kind, data in good.items():
        for tenth in range(10):
            files[f"cut/{kind}_{tenth}.{suffixes[kind]}".encode()] = data[: len(data) * tenth // 10]
        for flip in range(24):
            damaged = bytearray(data)
            # Headers are small and matter most, so half of the flips hit the first 200 bytes.
            reach = len(data) if flip % 2 else 200
            for place in rng.integers(0, reach, 1 + flip // 4):
                damaged[place] ^= int(rng.integers(1, 256))
            files[f"flipped/{kind}_{flip}.{suffixes[kind]}".encode()] = bytes(damaged)
        files[f"wrong/{kind}.{'png' if kind == 'JPEG' else 'jpg'}".encode()] = data
    files |= {f"bomb/{name}".encode(): data for name, data in _bombs(good["JPEG"]).items()}
    files |= {f"noise/{number}.jpg".encode(): rng.bytes(200 * number) for number in range(1, 6)}
    files[b"wrong/text.jpg"] = b"I am no picture"
    files[b"wrong/page.png"] = b"<html><body>404 not found</body></html>"
    files["/".join(["deep"] * 40 + ["photo.jpg"]).encode()] = good["JPEG"] + b"1"
    odd = ["new\nline.jpg", "quote'\".jpg", "-rf.jpg", "%41.jpg", "a b  c.jpg", "\u202etxt.jpg", "été 😀.jpg"]
    odd.append("x" * 250 + ".jpg")
    for number, name in enumerate(odd):
        files[b"odd/" + name.encode()] = good["JPEG"] + bytes([number])
    files[b"odd/caf\xe9.jpg"] = good["JPEG"] + b"latin"
    for name, data in files.items():
        path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 (pathlib joins no bytes)
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
    return len(files)


class _Watch(threading.Thread):
    """Records the peak memory of every Python worker of a stage."""

    def __init__(self, stage: Any) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self.peaks: dict[int, float] = {}

    def run(self) -> None:
        while self._stage.process.poll() is None:
            try:
                self._stage.tree = psutil.Process(self._stage.process.pid).children(recursive=True)
                for worker in self._stage.python_workers():
                    status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
                    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
                    self.peaks[worker.pid] = peak / 1024
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError, StopIteration):
                pass
            time.sleep(0.1)


def test_three_hundred_damaged_files_are_three_hundred_rows(
    people: list[tuple[str, str | None, bytes]], start_stage: Callable[..., Any], project: Path, tmp_path: Path
) -> None:
    face = Image.open(io.BytesIO(people[0][2])).convert("RGB").crop((45, 45, 205, 205))
    count = _write_damaged(tmp_path / "files", face)
    assert count >= 300
    ingest = [sys.executable, "-m", "pipelines.cli", "ingest", "files", "--out", "faces", "--layout", "flat"]
    done = subprocess.run(
        [*ingest, "--no-version", "--params", str(project / "profiles" / "tiny.yaml")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    stage = start_stage(tmp_path, tmp_path / "faces", "preprocess.max_failed_share=1.0", "preprocess.slice_photos=64")
    watch = _Watch(stage)
    watch.start()
    report = stage.report()
    watch.join()
    rows = read_rows(tmp_path / "processed", PROCESSED_SCHEMA).to_pylist()
    outcomes = Counter(row["reason"] or row["status"] for row in rows)
    memory = max(watch.peaks.values())
    print(
        f"\n{count} files, {len(rows)} rows: {dict(outcomes)}; workers {len(watch.peaks)}, at most {memory:.0f} MB each"
    )
    assert report["rows"] == len(rows) == len({row["file_name"] for row in rows}) == count
    assert all((row["status"] == "ok") == (row["reason"] is None) for row in rows)
    assert set(outcomes) - {"ok"} <= set(REASONS)
    assert outcomes["analyser_failed"] == 0
    found = {row["file_name"]: row["reason"] or "ok" for row in rows}
    assert all(found[name] == "ok" for name in found if name.startswith(("odd/", "deep/")))
    assert {found[f"wrong/{kind}.{'png' if kind == 'JPEG' else 'jpg'}"] for kind in _FORMATS} == {"ok"}
    bombs = {name: reason for name, reason in found.items() if name.startswith("bomb/")}
    assert "ok" not in bombs.values()
    assert {bombs[f"bomb/{name}"] for name in ("claims_60000.png", "claims_4_billion.png", "tall.jpg")} == {"too_large"}
    assert set(outcomes) >= {"ok", "truncated", "unreadable", "too_large", "empty", "duplicate"}
    # Two cores have two workers from the first photo to the last, so none was lost and replaced.
    assert len(watch.peaks) <= 2
    assert memory < _MEMORY_MB

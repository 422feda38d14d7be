"""Awkward photos (broken, huge, animated, oddly coded or named), a checkout with its own MLflow database, and a folder
as a trained project leaves it: random base models, and parameters that name the real face networks."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from model.foundation.random_models import save_random_models
from model.network.base import load_base
from pipelines.core.params import Params, load_params
from tests.pipelines.photos import encoded
from tests.processes import commit_all
from tests.random_networks import random_adapter


@pytest.fixture(scope="session")
def params(project: Path) -> Params:
    """The tiny profile."""
    return load_params(project / "profiles" / "tiny.yaml")


@dataclass(frozen=True)
class Awkward:
    """What must become of one awkward file.

    `reason` is the rejection preprocessing must give, or None where the picture must be decoded correctly (its
    status is then `ok` if it shows a face). `format`, `width`, `height` are what ingest reads from the header
    (stored size, before the EXIF rotation; None where there is no readable header); `shown` is (width, height)
    of the decoded picture.
    """

    reason: str | None
    format: str | None
    width: int | None
    height: int | None
    shown: tuple[int, int] | None


# file_name as it stands in a row (the byte that is not UTF-8 percent-encoded) → what must become of it. The picture
# that the files are made from is 120 wide and 160 high.
AWKWARD: dict[str, Awkward] = {
    "animated.gif": Awkward(None, "GIF", 120, 160, (120, 160)),
    "caf%E9.jpg": Awkward(None, "JPEG", 120, 160, (120, 160)),
    "cmyk.jpg": Awkward(None, "JPEG", 120, 160, (120, 160)),
    "empty.jpg": Awkward("empty", None, None, None, None),
    "exif_rotated.jpg": Awkward(None, "JPEG", 160, 120, (120, 160)),
    "huge_header.png": Awkward("too_large", "PNG", 20000, 20000, None),
    "sixteen_bit.png": Awkward(None, "PNG", 120, 160, (120, 160)),
    "text.jpg": Awkward("unreadable", None, None, None, None),
    "truncated.jpg": Awkward("truncated", "JPEG", 120, 160, None),
    "zz_copy_of_cmyk.jpg": Awkward("duplicate", "JPEG", 120, 160, None),
}


def drawn_face(width: int = 120, height: int = 160) -> Image.Image:
    """Draw a plain frontal face on a textured background (RGB)."""
    noise = np.random.default_rng(0).integers(90, 140, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    x, y, r = width / 2, height / 2, min(width, height) * 0.36
    draw.ellipse((x - r, y - r * 1.25, x + r, y + r * 1.25), fill=(224, 178, 150))
    for side in (-1, 1):
        draw.ellipse((x + side * r * 0.42 - 7, y - r * 0.3 - 5, x + side * r * 0.42 + 7, y - r * 0.3 + 5), fill="white")
        draw.ellipse((x + side * r * 0.42 - 3, y - r * 0.3 - 3, x + side * r * 0.42 + 3, y - r * 0.3 + 3), fill="black")
    draw.line((x, y - r * 0.1, x - 4, y + r * 0.25), fill=(180, 130, 110), width=3)
    draw.arc((x - r * 0.4, y + r * 0.3, x + r * 0.4, y + r * 0.75), 20, 160, fill=(170, 60, 60), width=4)
    return image


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims `width` x `height` pixels and holds none of them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def make_awkward_photos(folder: Path, picture: Image.Image | None = None) -> Path:
    """Write the ten awkward files into `folder`, made from `picture` (RGB, default: a drawn face); return `folder`."""
    face = (picture or drawn_face()).convert("RGB").resize((120, 160))
    folder.mkdir(parents=True, exist_ok=True)
    jpeg = encoded(face, "JPEG", quality=92)
    cmyk = encoded(face.convert("CMYK"), "JPEG", quality=92)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    grey = np.asarray(face.convert("L"), np.uint16) * 257
    frames = [face, face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), face]
    files: dict[str, bytes] = {
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100),
        "cmyk.jpg": cmyk,
        "empty.jpg": b"",
        "exif_rotated.jpg": encoded(face.rotate(90, expand=True), "JPEG", quality=92, exif=orientation),
        "huge_header.png": _png_header(20000, 20000),
        "sixteen_bit.png": encoded(Image.fromarray(grey), "PNG"),
        "text.jpg": b"this is not a picture\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "zz_copy_of_cmyk.jpg": cmyk,
    }
    for name, body in files.items():
        (folder / name).write_bytes(body)
    latin1 = os.path.join(os.fsencode(folder), b"caf\xe9.jpg")  # noqa: PTH118 (pathlib joins no bytes)
    with open(latin1, "wb") as file:  # noqa: PTH123
        file.write(encoded(face, "JPEG", quality=91))
    return folder


@pytest.fixture
def awkward_photos(tmp_path: Path) -> Path:
    """A flat folder of awkward files made from a drawn face."""
    return make_awkward_photos(tmp_path / "awkward")


@pytest.fixture
def awkward_expected() -> dict[str, Awkward]:
    """What must become of each file of `awkward_photos`, by the `file_name` of its row."""
    return dict(AWKWARD)


@pytest.fixture
def write_awkward_photos() -> Callable[[Path, Image.Image | None], Path]:
    """Write the awkward files from a face of the test's own choice: (folder, picture) → folder."""
    return make_awkward_photos


@pytest.fixture(scope="session")
def empty_database(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """MLflow's database with nothing in it but the experiment: its tables take longer to make than a test does."""
    from pipelines.registry.settings import connect, database

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
            patch.delenv(name, raising=False)
        return database(once("mlflow", connect))


@pytest.fixture
def checkout(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a new MLflow database beside it."""
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_AIRFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy2(empty_database, root / "mlflow.db")
    (root / ".gitignore").write_text("/mlflow.db*\n/.dynamicid/\n")
    (root / "README").write_text("a checkout\n")
    commit_all(root, "start")
    return root


def _write_random_home(home: Path, profile: Path, shared: Path) -> Path:
    """Write `anchored` (no IMR yet), `models/adapter` and `params.yaml` into `home` and return it."""
    models = save_random_models(home / "base")
    base = load_base(models.pipeline, models.image_encoder)
    reference = base.reference(str(models.pipeline), str(models.image_encoder))
    random_adapter(base, imr=False).save(home / "anchored", reference)
    random_adapter(base).save(home / "models" / "adapter", reference)
    tree = yaml.safe_load(profile.read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    tree["preprocess"] |= {
        "insightface_name": "buffalo_real_mini",
        "insightface_root": str(shared / "weights" / "insightface"),
        "landmarker": {
            "kind": "onnx",
            "path": str(shared / "weights" / "landmarks68" / "slim_160_latest.onnx"),
            "input_size": 160,
            "channel_order": "bgr",
        },
        "captions": {"sources": ["sidecar"]},
    }
    # What ships fits the shipped base alone.
    tree["evaluate"] |= {"steps": 2, "shipped_adapter": None}
    # A quantised network passes no gradients.
    tree["train_anchoring"]["identity"]["weight"] = 0.0
    (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return home


@pytest.fixture(scope="session")
def random_home(project: Path, shared: Path) -> Callable[[Path], Path]:
    """Fills the folder it is given, see `_write_random_home`."""
    return lambda home: _write_random_home(home, project / "profiles" / "tiny.yaml", shared)

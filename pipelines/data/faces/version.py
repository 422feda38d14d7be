"""Which analysers looked: a fingerprint of everything that a record depends on besides the photo."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.core.paths import project_root, resolve
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.captions import caption_folders
from pipelines.data.faces.insightface_analyser import pack_folder

# They say how the work is divided and what becomes of its result, not what a record holds.
_EXECUTION = frozenset({"test_share", "val_share", "buckets", "slice_photos", "master", "spark", "max_failed_share"})
_LIBRARIES = (
    "insightface",
    "onnxruntime",
    "opencv-python",
    "pillow",
    "numpy",
    "transformers",
    "torch",
    "face-alignment",
)
_CHUNK = 2**20


def analyser_version(params: Preprocess) -> str:
    """Return a sha256 over parameters, network files, library versions and this code; equal records need it equal.

    Paths do not count, the files at their ends do. Raises UserError where one is missing.
    """
    digest = hashlib.sha256()
    settings = params.model_dump(exclude=set(_EXECUTION) | {"insightface_root"})
    settings["landmarker"].pop("path")
    for key in ("clip_path", "internvl_path"):
        settings["captions"].pop(key)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {_installed(library)}\n".encode())
    root = project_root()
    sources = [
        *sorted((root / "pipelines" / "data" / "faces").glob("*.py")),
        root / "model" / "face" / "face_prompts.py",
    ]
    for file in [*sources, *network_files(params)]:
        digest.update(f"{file.name}\n".encode())
        _add(digest, file)
    return digest.hexdigest()


def network_files(params: Preprocess) -> list[Path]:
    """Return the files of every network that the parameters name; raise UserError where a folder is missing."""
    pack = pack_folder(params.insightface_name, resolve(params.insightface_root))
    folders = [pack, resolve(params.landmarker.path), *caption_folders(params.captions)]
    return [file for folder in folders for file in _files(folder)]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _add(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


def _installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"

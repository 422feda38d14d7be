"""Compute the version of the analysers: a hash of everything that a record depends on, except the photo."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.core.files import sha256
from pipelines.core.paths import project_root, resolve
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.calibration import pack_traits
from pipelines.data.faces.captions import caption_folders
from pipelines.data.faces.insightface_analyser import pack_folder
from pipelines.data.faces.votes import voting_files

# Parameters for dividing the work and using its results; a record does not depend on them.
_EXECUTION = frozenset({"test_share", "val_share", "buckets", "slice_photos", "master", "spark", "max_failed_share"})
_LIBRARIES = (
    "insightface",
    "onnxruntime",
    "opencv-python",
    "pillow",
    "pi-heif",
    "numpy",
    "transformers",
    "torch",
    "face-alignment",
)


def analyser_version(params: Preprocess) -> str:
    """Return a sha256 over parameters, network files, library versions and the code of the analysis.

    Of a path only the names and contents of its files count. Raises UserError where a file is missing.
    """
    digest = hashlib.sha256()
    settings = params.model_dump(exclude=set(_EXECUTION) | {"insightface_root"})
    settings["landmarker"].pop("path")
    for key in ("clip_path", "internvl_path"):
        settings["captions"].pop(key)
    settings["pack"] = pack_traits(params)[:3]  # what is doubtful is read from the stored score
    for network in (*settings["expression"]["networks"], *settings["pose"]["networks"]):
        network.pop("path")
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {_installed(library)}\n".encode())
    pack = pack_folder(params.insightface_name, resolve(params.insightface_root))
    networks = [pack, resolve(params.landmarker.path), *caption_folders(params.captions), *voting_files(params)]
    files = [file for path in networks for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    for file in [*code_files("pipelines/data/faces/*.py"), *code_files("model/face/face_prompts.py"), *files]:
        if file.is_file():
            digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def code_files(pattern: str) -> list[Path]:
    """Return the project's files that match `pattern`; raise ValueError where none does (the code has moved)."""
    found = sorted(project_root().glob(pattern))
    if not found:
        raise ValueError(f"{project_root() / pattern}: no code there, so no change of it would be noticed")
    return found


def _installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"

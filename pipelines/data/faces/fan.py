"""Find 68 landmarks by FAN (Bulat and Tzimiropoulos 2017) through the face-alignment library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import UserError

_POINTS = 68


class FanLandmarker:
    """2-D FAN from a local file; nothing is downloaded."""

    def __init__(self, path: Path) -> None:
        """Load the weights `path`: a file, or a folder that holds it under the name that face-alignment gives it.

        The number of stacked hourglasses is read from the file. Raises UserError where the file is missing or holds
        something else.
        """
        self._aligner = _aligner(*_load_network(_weights_file(path)))

    def landmarks(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 68, 2) float32 in pixels of N pictures (H, W, 3) uint8 RGB, given their face boxes (4,)."""
        found = [
            self._aligner.get_landmarks_from_image(image, detected_faces=[[float(value) for value in box]])[0]
            for image, box in zip(images, boxes, strict=True)
        ]
        return np.asarray(found, np.float32).reshape(-1, _POINTS, 2)


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    from face_alignment.api import models_urls

    name = models_urls["2DFAN-4"].rsplit("/", 1)[-1]
    if (path / name).is_file():
        return path / name
    raise UserError(f"preprocess.landmarker.path = {path}: no FAN weights; expected the file {name}, or its folder")


def _load_network(file: Path) -> tuple[Any, int]:
    import pickle

    import torch
    from face_alignment.models import FAN

    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        modules = 1 + max(int(match[1]) for key in weights if (match := re.match(r"m(\d+)\.", key)))
        network = FAN(modules)
        network.load_state_dict(weights)
    except (pickle.UnpicklingError, RuntimeError, ValueError, AttributeError, TypeError, EOFError) as error:
        summary = " ".join(str(error).split()).split(". ")[0][:200]
        raise UserError(f"{file}: not the weights of a FAN (a state dict of face_alignment's FAN): {summary}") from None
    return network, modules


def _aligner(network: Any, modules: int) -> Any:
    import torch
    from face_alignment import FaceAlignment, LandmarksType

    device = "cuda" if torch.cuda.is_available() else "cpu"

    class LocalFaceAlignment(FaceAlignment):
        """FaceAlignment with a network that is loaded already; the library would download one."""

        def _load_native(self, network_name: str, network_size: int, device: str, dtype: Any) -> Any:
            return network.to(device, dtype=dtype).eval()

    # Boxes come from the face pack; the `folder` detector loads no network.
    return LocalFaceAlignment(
        LandmarksType.TWO_D, network_size=modules, device=device, face_detector="folder", compile=False
    )

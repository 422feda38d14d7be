"""The five face networks of the foundation: trained one after another, written where the profile looks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.foundation.people import People

PACK = "insightface/models/tiny_faces"
FILES = {
    "landmarks": "landmarks68.onnx",
    "recogniser": f"{PACK}/rec.onnx",
    "detector": f"{PACK}/det.onnx",
    "expression_pose": "judges/expression_pose.onnx",
    "judge": "judges/recogniser.onnx",
}
"""Where each network lies in the folder of weights."""


def train_face_network(name: str, people: People, folder: Path, weights: Path, **settings: int) -> dict[str, Any]:
    """Train the network `name` of FILES, write its file under `weights` and its figures to `folder`/figures.json.

    `folder` keeps the state from which a stopped training goes on. `settings` (steps, seed, batch of the detector)
    are those of its own `train` where not given. Returns the figures, measured on held-out people.
    """
    import importlib

    module = importlib.import_module(f"model.foundation.{name}")
    file = weights / FILES[name]
    if name == "detector":
        # It is measured through FaceAnalysis, on the file.
        figures: dict[str, Any] = module.train(people, folder, file, **settings)
    else:
        network, figures = module.train(people, folder, **settings)
        module.export(network, file)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return figures

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


def train_face_networks(people: People, folder: Path, weights: Path) -> dict[str, dict[str, Any]]:
    """Train what is missing of all five, each in `folder`/<name>; return the figures of all by name.

    A network whose figures and file are there already is left as it is.
    """
    done = {}
    for name, place in FILES.items():
        kept = folder / name / "figures.json"
        if kept.is_file() and (weights / place).is_file():
            done[name] = json.loads(kept.read_text(encoding="utf-8"))
        else:
            done[name] = train_face_network(name, people, folder / name, weights)
    return done

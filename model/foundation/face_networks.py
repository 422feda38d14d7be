"""Training of the five face networks of the foundation.

Each has a module with `build(people)`, `losses(module, people, rng, batch, progress)`, where progress goes from 0 to 1
over the training, and `measure(network, people)` on held-out people; the detector's takes its file, not the network.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from model.foundation.export import export_rows
from model.foundation.loop import fit
from model.foundation.people import People

PACK = "insightface/models/tiny_faces"
FILES = {
    "landmarks": "landmarks68.onnx",
    "recogniser": f"{PACK}/rec.onnx",
    "detector": f"{PACK}/det.onnx",
    "expression_pose": "judges/expression_pose.onnx",
    "judge": "judges/recogniser.onnx",
}
"""File of each network in the folder of weights; the profile tiny expects it there."""


def train_face_network(
    name: str, people: People, folder: Path, weights: Path, *, steps: int, seed: int, batch: int | None = None
) -> dict[str, Any]:
    """Train the network `name` of FILES, write its file under `weights` and return its figures.

    `folder` keeps the checkpoints, from which a stopped training resumes.
    """
    network = importlib.import_module(f"model.foundation.{name}")
    torch.manual_seed(seed)
    module = network.build(people).to(memory_format=torch.channels_last)
    fit(
        module,
        lambda number, rng: network.losses(module, people, rng, batch or network.BATCH, number / steps),
        folder,
        name=name.replace("_", " and "),
        steps=steps,
        rate=network.RATE,
        seed=seed,
    )
    file = weights / FILES[name]
    if name == "detector":
        network.export(module, file)
        return network.measure(file, people)
    # Recognisers are trained inside their loss module.
    trained = getattr(module, "network", module).eval()
    figures = network.measure(trained, people)
    export_rows(trained, network.SIZE, network.OUTPUTS, file)
    return figures

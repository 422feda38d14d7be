"""Logs the adapter as an MLflow pyfunc model: a code file plus artefacts, signature, example and model card."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import stage_names
from pipelines.core.params import Params
from pipelines.registry.model_card import model_card

CODE = Path(__file__).with_name("pyfunc.py")
_REQUIREMENTS = ("mlflow", "torch", "diffusers", "transformers", "insightface", "onnxruntime", "safetensors")


def adapter_hash(folder: Path) -> str:
    """Return the sha256 (hex) over names and bytes of the adapter's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def input_example() -> dict[str, list[Any]]:
    """Return one request: a procedural person as the reference, so that no photo of anybody is needed."""
    import numpy as np
    from PIL import Image

    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person
    from pipelines.data.synthetic.scene import Scene

    scene = Scene.sample(np.random.default_rng(0), "neutral", "front")
    picture = render(Person.sample("example", 0, 0), scene, 128)
    buffer = io.BytesIO()
    Image.fromarray(picture.image).save(buffer, format="PNG")
    return {
        "references": [[base64.b64encode(buffer.getvalue()).decode()]],
        "prompt": ["a photo of a person wearing a red t-shirt, blue background"],
        "face_prompts": [["happy, slightly turned to the left"]],
        "boxes": [[[0.0, 0.0, 1.0, 1.0]]],
        "seed": [0],
    }


def signature() -> Any:
    """Return the model's signature: references are base64 pictures, boxes are y0, x0, y1, x1 in [0, 1]."""
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import Array, ColSpec, Schema

    inputs = Schema(
        [
            ColSpec(Array("string"), "references"),
            ColSpec("string", "prompt"),
            ColSpec(Array("string"), "face_prompts", required=False),
            ColSpec(Array(Array("double")), "boxes", required=False),
            ColSpec("long", "seed", required=False),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string", "image")]))


def log_version(client: Any, params: Params, inputs: Any, metrics: dict[str, Any], tags: dict[str, str]) -> Any:
    """Log the adapter in a run of its own and create a registered version from it; return the version."""
    import mlflow
    import pandas as pd

    from pipelines.registry.lineage import lineage_of
    from pipelines.registry.snapshot import take_snapshot

    lineages = [lineage_of(inputs.root, name) for name in stage_names()]
    last = lineages[-1].tags()
    # Of every stage, so that data and models of a version are found by their hashes alone.
    for lineage in lineages:
        last[f"dynamicid.lock_hash.{lineage.stage}"] = lineage.lock_hash
        last.update({f"dynamicid.output.{path}": digest for path, digest in lineage.outputs.items()})
    with mlflow.start_run(run_name="register", tags={**last, **tags, "dynamicid.stage": "register"}) as run:
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "model_card.md"
            card.write_text(model_card(params, metrics, lineages), encoding="utf-8")
            settings = Path(folder) / "params.yaml"
            settings.write_text(
                yaml.safe_dump(params.model_dump(mode="json", by_alias=True), sort_keys=False), encoding="utf-8"
            )
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                artifacts={
                    "adapter": str(inputs.root / inputs.adapter),
                    "params": str(settings),
                    "model_card": str(card),
                },
                signature=signature(),
                input_example=pd.DataFrame(input_example()),
                pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in _REQUIREMENTS],
            )
        mlflow.log_artifact(str(inputs.root / inputs.report))
    snapshot = take_snapshot(inputs.root, f"What {params.register_.model_name} {run.info.run_id} was made from")
    if snapshot is not None:
        last["dynamicid.snapshot"] = snapshot
    # A server refuses a source `models:/m-…` unless the model's id stands beside it.
    version = client.create_model_version(
        params.register_.model_name,
        info.model_uri,
        run_id=run.info.run_id,
        tags={**last, **tags},
        model_id=info.model_id,
    )
    client.update_model_version(params.register_.model_name, version.version, model_card(params, metrics, lineages))
    return client.get_model_version(params.register_.model_name, version.version)

"""Log the adapter as an MLflow pyfunc model: a code file with artefacts, signature, example and model card."""

from __future__ import annotations

import base64
import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import FACES
from pipelines.core.files import folder_sha256
from pipelines.core.params import PARAMS, Params, dumped, read_tree
from pipelines.registry.champion_metrics import figures_problem
from pipelines.registry.model_card import model_card
from pipelines.registry.registry import CHALLENGER, versions_of
from pipelines.registry.results import StageResult
from pipelines.versions.dataset_version import current_version, pointer_of

CODE = Path(__file__).with_name("pyfunc.py")
_REQUIREMENTS = ("mlflow", "torch", "diffusers", "transformers", "insightface", "onnxruntime", "safetensors")


@dataclass(frozen=True)
class Challenger:
    """An adapter to register, and its evaluation.

    `root` is its checkout, `adapter` its folder, `metrics` the contents of `reports/metrics.json`, `report` the page
    beside it, `processed` the photos for evaluating the champion again, `results` what made them, by stage.
    """

    root: Path
    adapter: Path
    metrics: dict[str, Any]
    report: Path
    processed: Path
    results: Sequence[StageResult] = ()


def input_example() -> dict[str, list[Any]]:
    """Return one example request, with a procedural person as the reference instead of a real one."""
    from PIL import Image

    from pipelines.data.synthetic.sheet import portrait

    buffer = io.BytesIO()
    Image.fromarray(portrait("example", 0, 128)).save(buffer, format="PNG")
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


def find_or_log(client: Any, params: Params, challenger: Challenger) -> tuple[Any, bool]:
    """Return the version of this adapter and evaluation set, and if it is new; a new one gets alias `challenger`."""
    from mlflow.exceptions import MlflowException

    from pipelines.registry.recorder import record_stage

    name = params.register_.model_name
    key = {
        "dynamicid.adapter_hash": folder_sha256(challenger.adapter),
        "dynamicid.evaluation_set": challenger.metrics["evaluation_set"],
    }
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name, description="DynamicID adapters; the base model is named by reference.")
    for found in versions_of(client, name):
        same = all(found.tags.get(tag) == value for tag, value in key.items())
        # A version that earlier releases registered with figures of another adapter is none of this one.
        if same and figures_problem(found) is None:
            return found, False
    run_id = record_stage(challenger.root, "evaluate", params)
    version = _log(client, params, challenger, {**key, "dynamicid.evaluate_run": run_id})
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version, True


def _as_they_were(root: Path, results: Sequence[StageResult]) -> dict[str, bytes]:
    """Return parameter file and dataset pointer as they were when `results` were made, if they have changed since."""
    files: dict[str, bytes] = {}
    file = root / PARAMS
    if file.is_file():
        present = read_tree(file)
        made = dict(present)
        for result in results:
            made |= {name: {**made.get(name, {}), **values} for name, values in result.params.items()}
        if made != present:
            files[PARAMS] = dumped(made).encode()
    dataset = results[-1].dataset_md5
    if dataset is not None and current_version(root).md5 != dataset:
        files[f"{FACES}.dvc"] = pointer_of(root, dataset)
    return files


def _log(client: Any, params: Params, challenger: Challenger, tags: dict[str, str]) -> Any:
    """Log the adapter in a new run, create a registered version from it and return that version."""
    import mlflow
    import pandas as pd

    from pipelines.registry.lineage import lineage_of
    from pipelines.registry.snapshot import take_snapshot

    name, root = params.register_.model_name, challenger.root
    lineages = [lineage_of(root, result.stage, result) for result in challenger.results]
    tags = {**lineages[-1].tags(), **tags}
    # Tags of every stage, so that a version can be found by the hashes of its data and models.
    for lineage in lineages:
        tags[f"dynamicid.lock_hash.{lineage.stage}"] = lineage.lock_hash
        tags |= {f"dynamicid.output.{path}": digest for path, digest in lineage.outputs.items()}
    card = model_card(params, challenger.metrics, lineages)
    with mlflow.start_run(run_name="register", tags={**tags, "dynamicid.stage": "register"}) as run:
        with tempfile.TemporaryDirectory() as folder:
            files = {"params": Path(folder) / "params.yaml", "model_card": Path(folder) / "model_card.md"}
            settings = params.model_dump(mode="json", by_alias=True)
            files["params"].write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
            files["model_card"].write_text(card, encoding="utf-8")
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                # Addresses, not paths: MLflow would decode a path with a percent sign or cut one at a question mark.
                artifacts={
                    key: path.absolute().as_uri() for key, path in {"adapter": challenger.adapter, **files}.items()
                },
                signature=signature(),
                input_example=pd.DataFrame(input_example()),
                pip_requirements=[f"{package}=={installed(package).split('+')[0]}" for package in _REQUIREMENTS],
            )
        mlflow.log_artifact(str(challenger.report))
    # What was made by hand is not in dvc.lock, so that no snapshot would restore it.
    by_hand = any(result.by_hand for result in challenger.results)
    message = f"What {name} {run.info.run_id} was made from"
    snapshot = None if by_hand else take_snapshot(root, message, _as_they_were(root, challenger.results))
    if snapshot is not None:
        tags["dynamicid.snapshot"] = snapshot
    # Without `model_id`, a server refuses a source such as `models:/m-…`.
    version = client.create_model_version(
        name, info.model_uri, run_id=run.info.run_id, tags=tags, model_id=info.model_id, description=card
    )
    return client.get_model_version(name, version.version)

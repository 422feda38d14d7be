"""Log the adapter as an MLflow pyfunc model: a code file with artefacts, signature, example and model card."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import FACES
from pipelines.core.documents import write_yaml
from pipelines.core.errors import StageFailed
from pipelines.core.files import folder_sha256
from pipelines.core.params import PARAMS, Params, read_tree
from pipelines.core.weights.licences import UNKNOWN, licences_by_network, networks_of_adapter
from pipelines.evaluation.belonging import MADE_BY, withheld_tags
from pipelines.registry.champion_metrics import figures_problem
from pipelines.registry.faults import TrackingFault
from pipelines.registry.model_card import model_card
from pipelines.registry.model_extras import of_model, requirements, write_sheet
from pipelines.registry.parents import child_run
from pipelines.registry.recorder import record_stage
from pipelines.registry.registry import CHALLENGER, TRAINED_HERE, MadeFrom, versions_of
from pipelines.registry.results import StageResult
from pipelines.registry.runs import PARENT, finished_run, log_values
from pipelines.registry.tracking import Tracking, ask, make
from pipelines.serving.motion_request import COLUMNS as MOTION
from pipelines.versions.dataset_version import current_version, pointer_of

CODE = Path(__file__).with_name("pyfunc.py")
_CARD = "model_card"
# Tags: of a version whose registration is not complete; of the run of a version, its number.
_UNFINISHED, _VERSION = "dynamicid.unfinished", "dynamicid.version"
# Tags of a run that its version does not get.
_OF_RUN = ("dynamicid.stage", "dynamicid.model", "dynamicid.writer", _VERSION)
# How tags begin that only the run of a result has: of a version, `MadeFrom` has those of all results.
_OF_RESULT = ("dynamicid.lock_hash", "dynamicid.output.")


@dataclass(frozen=True)
class Challenger:
    """An adapter to register, and its evaluation.

    `root` is its checkout, `adapter` its folder, `metrics` the contents of `reports/metrics.json`, `report` the page
    beside it, `processed` the photos for evaluating the champion again, `results` what made them, by stage. An adapter
    that was not trained in the checkout has no `results`; `evaluate_run` is then the MLflow run of its metrics.
    """

    root: Path
    adapter: Path
    metrics: dict[str, Any]
    report: Path
    processed: Path
    results: Sequence[StageResult] = ()
    evaluate_run: str | None = None


def input_example(*, face_prompts: bool = True) -> dict[str, list[Any]]:
    """Return one example request, with a procedural person as the reference instead of a real one.

    Without `face_prompts` it has none, for a model of a method that takes none.
    """
    from PIL import Image

    from pipelines.data.synthetic.sheet import portrait

    buffer = io.BytesIO()
    Image.fromarray(portrait("example", 0, 128)).save(buffer, format="PNG")
    return {
        "references": [[base64.b64encode(buffer.getvalue()).decode()]],
        "prompt": ["a photo of a person wearing a red t-shirt, blue background"],
        **({"face_prompts": [["happy, slightly turned to the left"]]} if face_prompts else {}),
        "boxes": [[[0.0, 0.0, 1.0, 1.0]]],
        "seed": [0],
    }


def signature() -> Any:
    """Return the model's signature: references are base64 pictures, or lists of them; boxes y0, x0, y1, x1 in [0, 1].

    `image` is a base64 PNG, `cut` what of the prompt was too long, `note` why the picture may be wrong all the same.
    """
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, Schema

    inputs = Schema(
        [
            # Of one person a text, or a list of texts; `pipelines.serving.request` checks which.
            ColSpec(Array(AnyType()), "references"),
            ColSpec("string", "prompt"),
            ColSpec(Array("string"), "face_prompts", required=False),
            ColSpec(Array(Array("double")), "boxes", required=False),
            ColSpec("long", "seed", required=False),
            ColSpec(Array(AnyType()), "faces", required=False),
            ColSpec("string", "negative_prompt", required=False),
            *(ColSpec("long", name, required=False) for name in ("width", "height", "number")),
            ColSpec("string", "sampler", required=False),
            # Of each person a number or nothing, of `driving` a text.
            *(ColSpec(Array(AnyType()), name, required=False) for name in MOTION),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string", name) for name in ("image", "cut", "note")]))


def find_or_log(client: Tracking, params: Params, challenger: Challenger) -> tuple[Any, bool]:
    """Return the version of this adapter and evaluation set, and if it is new; a new one gets alias `challenger`.

    What a killed process left is completed, or made again. Raises StageFailed where somebody deleted the version. The
    caller holds the registry's lock.
    """
    name = params.register_.model_name
    key = {"adapter_hash": folder_sha256(challenger.adapter), "evaluation_set": challenger.metrics["evaluation_set"]}
    versions = versions_of(client, name)
    same = [one for one in versions if all(one.tags.get(f"dynamicid.{tag}") == key[tag] for tag in key)]
    for found in same:
        # A version that earlier releases registered with figures of another adapter is none of this one.
        if figures_problem(client, found) is None:
            _complete(client, found)
            return found, False
    run_id = None if same else finished_run(client, stage="register", model=name, **key)
    number = None if run_id is None else client.get_run(run_id).data.tags.get(_VERSION)
    if number is not None:
        raise StageFailed(
            f"{name}: this adapter was registered as v{number}, which somebody deleted, so it is not registered again; "
            f"delete its MLflow run, too, where it shall be: `mlflow runs delete --run-id {run_id}`"
        )
    if run_id is not None and _card_of(client, run_id) is None:
        client.set_terminated(run_id, "FAILED")  # somebody removed its model before it became a version
        run_id = None
    if run_id is None:
        evaluate_run = challenger.evaluate_run or record_stage(challenger.root, "evaluate", params)
        run_id = _log(client, params, challenger, {**key, "model": name, "evaluate_run": evaluate_run})
    version = _create_version(client, name, run_id)
    _complete(client, version)
    return client.get_model_version(name, version.version), True


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
            files[PARAMS] = write_yaml(made).encode()
    dataset = results[-1].dataset_md5
    if dataset is not None and current_version(root).md5 != dataset:
        files[f"{FACES}.dvc"] = pointer_of(root, dataset)
    return files


def _log(client: Tracking, params: Params, challenger: Challenger, key: dict[str, str]) -> str:
    """Log the adapter with all that a version needs in a new run, and return the id of that run."""
    import mlflow
    import pandas as pd
    from mlflow.entities import LoggedModelOutput

    from pipelines.registry.lineage import lineage_of, source_tags
    from pipelines.registry.snapshot import take_snapshot

    name, root = params.register_.model_name, challenger.root
    lineages = [lineage_of(root, result.stage, result) for result in challenger.results]
    tags = lineages[-1].tags() if lineages else {TRAINED_HERE: "false"}
    tags |= {f"dynamicid.{tag}": value for tag, value in key.items()}
    tags = {key: value for key, value in tags.items() if not key.startswith(_OF_RESULT)}
    networks = networks_of_adapter(challenger.adapter, root)
    licences = licences_by_network(networks)
    # Of every stage, so that a version can be found by the hashes of its data and models.
    made = MadeFrom(
        stages={one.stage: one.lock_hash for one in lineages},
        outputs={path: digest for one in lineages for path, digest in one.outputs.items()},
        networks=licences,
    )
    tags |= made.tags() | withheld_tags(challenger.metrics)
    tags["dynamicid.licences"] = ", ".join(sorted(set(licences.values()))) or UNKNOWN
    settings = challenger.metrics.get("settings", {})
    if "base_drawn" in settings:
        tags |= {f"dynamicid.{name}": settings[name] for name in ("base", "base_drawn")}
    # What was made by hand, or elsewhere, is not in dvc.lock, so that no snapshot would restore it.
    by_hand = not challenger.results or any(result.by_hand for result in challenger.results)
    message = f"What {name} with adapter {key['adapter_hash']} was made from"
    snapshot = None if by_hand else take_snapshot(root, message, _as_they_were(root, challenger.results))
    if snapshot is not None:
        tags["dynamicid.snapshot"] = snapshot
    parent = client.get_run(key["evaluate_run"]).data.tags.get(PARENT)
    tags |= source_tags(root, "register", now=False)
    with (
        child_run(client, root, "register", {**tags, "dynamicid.stage": "register"}, parent) as run_id,
        tempfile.TemporaryDirectory() as folder,
    ):
        files = {"params": Path(folder) / "params.yaml", _CARD: Path(folder) / f"{_CARD}.md"}
        settings = params.model_dump(mode="json", by_alias=True)
        files["params"].write_text(write_yaml(settings), encoding="utf-8")
        repository = tags.get("mlflow.source.git.repoURL")
        card = model_card(params, challenger.metrics, lineages, networks, repository)
        files[_CARD].write_text(card, encoding="utf-8")
        model = client.create_logged_model(client.experiment_id(), "model", run_id)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        ask(
            mlflow.pyfunc.log_model,
            name="model",
            model_id=model.model_id,
            python_model=str(CODE),
            # Addresses, not paths: MLflow would decode a path with a percent sign or cut one at a question mark.
            artifacts={key: path.absolute().as_uri() for key, path in {"adapter": challenger.adapter, **files}.items()},
            signature=signature(),
            # Only metrics of another method than DynamicID name it.
            input_example=pd.DataFrame(input_example(face_prompts="method" not in challenger.metrics.get(MADE_BY, {}))),
            pip_requirements=requirements(),
        )
        log_values(client, run_id, {}, of_model(challenger.metrics, model.model_id))
        if challenger.results:  # else the run of the evaluation has the pictures, and names their dataset
            client.log_artifact(run_id, str(challenger.report))
            sheet = Path(folder) / "pictures.png"
            if write_sheet(challenger.report, sheet):
                client.log_artifact(run_id, str(sheet))
    return run_id


def _create_version(client: Tracking, name: str, run_id: str) -> Any:
    """Create a version from the complete run `run_id`; it carries the tag `_UNFINISHED` until it is complete."""
    run, card = client.get_run(run_id), _card_of(client, run_id)
    (output,) = run.outputs.model_outputs
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("dynamicid.") and key not in _OF_RUN}
    tags |= {_UNFINISHED: "true"}
    with contextlib.suppress(TrackingFault):  # it exists
        client.create_registered_model(name, description="DynamicID adapters; the base model is named by reference.")

    def create() -> Any:
        # Without `model_id`, a server refuses a source such as `models:/m-…`.
        return client.plain.create_model_version(
            name,
            f"models:/{output.model_id}",
            run_id=run_id,
            tags=tags,
            model_id=output.model_id,
            description=card,
        )

    def find() -> Any | None:
        return next(iter(client.plain.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")), None)

    return make(create, find)


def _complete(client: Tracking, version: Any) -> None:
    """Make a new version the challenger, unless there is a newer one, and note its number in its run."""
    if _UNFINISHED not in version.tags:
        return
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    name, number = version.name, str(version.version)
    if str(versions_of(client, name)[-1].version) == number:
        client.set_registered_model_alias(name, CHALLENGER, number)
    with contextlib.suppress(TrackingFault):  # somebody deleted the run
        client.set_tag(version.run_id, _VERSION, number)
    with contextlib.suppress(TrackingFault):  # or the model
        registered = json.dumps([{"name": name, "version": number}])
        client.set_logged_model_tags(version.source.removeprefix("models:/"), {MLFLOW_MODEL_VERSIONS: registered})
    client.delete_model_version_tag(name, number, _UNFINISHED)


def _card_of(client: Tracking, run_id: str) -> str | None:
    """Return the model card that a run of registration logged, or None where its model is gone or not complete."""
    import mlflow
    from mlflow.entities import LoggedModelStatus

    outputs = client.get_run(run_id).outputs
    for output in outputs.model_outputs if outputs else ():
        try:
            model = client.get_logged_model(output.model_id)
            if model.status == LoggedModelStatus.READY:
                return str(ask(mlflow.artifacts.load_text, f"{model.artifact_location}/artifacts/{_CARD}.md"))
        except (TrackingFault, FileNotFoundError):
            continue
    return None

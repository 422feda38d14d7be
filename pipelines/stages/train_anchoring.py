"""train_anchoring: face encoder and SAA learn to draw a person from one photo (paper section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import ANCHORING, LOSSES_ANCHORING, PROCESSED
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.stages.training_stage import (
    STATE,
    TrainingOutputs,
    learned,
    load_models,
    photos_to_train_on,
    plain_errors,
    training_run,
    write_results,
)

if TYPE_CHECKING:
    from model.training.photos import Photos
    from model.training.recognition_network import RecognitionNetwork

NAME = "train_anchoring"


@dataclass(frozen=True)
class Inputs:
    """The processed photos, where caches and checkpoints are kept, and a checkpoint to resume from if it is chosen."""

    processed: Path = Path(PROCESSED)
    state: Path = STATE
    resume_from: Path | None = None


@dataclass(frozen=True)
class Outputs(TrainingOutputs):
    """The adapter folder, the loss curve and the figures."""

    adapter: Path = Path(ANCHORING)
    losses: Path = Path(LOSSES_ANCHORING)
    metrics: Path = Path("reports/train_anchoring/metrics.json")


def _start(uri: str | None) -> Path | None:
    if uri is None:
        return None
    from pipelines.registry.model_uri import adapter_folder

    return adapter_folder(uri, Path.cwd())


def _recogniser(params: Params, photos: Photos) -> RecognitionNetwork:
    """Return the recogniser with which the photos were preprocessed, for gradients."""
    from model.training.identity_loss import conditioning_recogniser

    pack = resolve(params.preprocess.insightface_root) / "models" / params.preprocess.insightface_name
    try:
        return conditioning_recogniser(pack, photos)
    except ValueError as error:
        raise ValueError(f"{error}; without the identity term: train_anchoring.identity.weight=0") from None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Train on the photos of split train; write the outputs and return what `metrics.json` holds.

    A run that was killed goes on from its last checkpoint and ends with the same bytes. Photos of split val are the
    probe; without any, the first training photos are. Raises UserError where a model or photo does not fit,
    StageFailed where the loss diverges or another process does not finish.
    """
    from model.training.anchoring import anchoring_data, train_anchoring
    from model.training.encode import Desk, base_digest, folder_digest
    from model.training.runtime import make_accelerator

    section = params.train_anchoring
    with plain_errors(NAME):
        accelerator = make_accelerator(section.mixed_precision, params.base.dtype)
        photos, refused = photos_to_train_on(params, inputs.processed)
        if not len(photos["train"]):
            raise ValueError(f"{inputs.processed}: no usable photo in split train: nothing to train on")
        base = load_models(params, accelerator)
        recogniser = _recogniser(params, photos["train"]) if section.identity.weight else None
        start = _start(section.start_from)
        hashes = {"base": base_digest(base), **{split: found.digest() for split, found in photos.items()}}
        if recogniser is not None:
            hashes["recogniser"] = recogniser.digest
        if start is not None:
            # The same address is another model in another registry.
            hashes["start"] = folder_digest(start)
        with training_run(
            NAME, section, hashes, accelerator, state=inputs.state, resume_from=inputs.resume_from
        ) as running:
            desk = Desk(inputs.state / "cache", section.cache_batch, accelerator)
            training = anchoring_data(base, photos["train"], desk, params.base.resolution)
            held_out = len(photos["val"]) > 0
            probing = anchoring_data(base, photos["val"], desk, params.base.resolution) if held_out else training
            adapter, curve = train_anchoring(
                base, training, probing, section, running, start=start, recogniser=recogniser
            )
            values = {
                "photos": len(photos["train"]),
                "people": len(photos["train"].people),
                "photos_not_permitted": refused,
                "probe_held_out": held_out,
                **learned(curve),
            }
            if accelerator.is_main_process:
                write_results(adapter, base, params, outputs, curve=curve, values=values)
    return values

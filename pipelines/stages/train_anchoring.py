"""train_anchoring: train face encoder and SAA to draw a person from one photo (paper section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import ANCHORING, LOSSES_ANCHORING
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.weights.licences import check_licences
from pipelines.stages.training_stage import (
    TrainingInputs,
    TrainingOutputs,
    adapter_to_start_from,
    check_base_of_start,
    check_kept,
    chosen_formats,
    curve_summary,
    determinism_of,
    load_models,
    photos_to_train_on,
    plain_errors,
    record_encoder,
    training_run,
    write_results,
)

if TYPE_CHECKING:
    from model.training.photos import Photos
    from model.training.recognition_network import RecognitionNetwork

NAME = "train_anchoring"
Inputs = TrainingInputs


@dataclass(frozen=True)
class Outputs(TrainingOutputs):
    """The adapter folder, the loss curve and the metrics."""

    adapter: Path = Path(ANCHORING)
    losses: Path = Path(LOSSES_ANCHORING)
    metrics: Path = Path("reports/train_anchoring/metrics.json")


def _recogniser(params: Params, photos: Photos) -> RecognitionNetwork:
    """Return the recogniser that embedded the photos, differentiable; raise ValueError if the face pack has another."""
    from model.training.identity_loss import conditioning_recogniser

    pack = resolve(params.preprocess.insightface_root) / "models" / params.preprocess.insightface_name
    try:
        return conditioning_recogniser(pack, photos)
    except ValueError as error:
        raise ValueError(f"{error}; to train without the identity term: train_anchoring.identity.weight=0") from None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Train on the photos of split train; write the outputs and return the content of `metrics.json`.

    A killed run resumes from its last checkpoint and ends with the same bytes. The probe is measured on photos of
    split val, or of split train if val is empty. Raise UserError if a model or photo does not fit, StageFailed if the
    loss diverges or another process is still training.
    """
    from model.network.methods import method_named
    from model.training.anchoring import anchoring_data, train_anchoring
    from model.training.encode import base_digest, folder_digest
    from model.training.runtime import make_accelerator

    section = params.train_anchoring
    with plain_errors(NAME), adapter_to_start_from(section.start_from, NAME, inputs.state) as start:
        networks = check_licences(params, {f"{NAME}.start_from": start})
        accelerator = make_accelerator(section.mixed_precision, params.base.dtype)
        photos, refused = photos_to_train_on(params, inputs.processed)
        if not len(photos["train"]):
            raise ValueError(f"{inputs.processed}: no usable photo in split train: nothing to train on")
        held_out = len(photos["val"]) > 0
        check_kept(NAME, section, held_out)
        base = load_models(params, accelerator)
        check_base_of_start(start, base, allow_other=params.base.allow_other)
        recogniser = _recogniser(params, photos["train"]) if section.identity.weight else None
        hashes = {"base": base_digest(base), **{split: part.digest() for split, part in photos.items()}}
        if recogniser is not None:
            hashes["recogniser"] = recogniser.digest
        if start is not None:
            # Hash the weights, not the address: in another registry, the same address is another model.
            hashes["start"] = folder_digest(start)
        hashes |= chosen_formats(params, section)
        with (
            training_run(NAME, section, hashes, accelerator, inputs) as running,
            record_encoder(params, section, accelerator, inputs) as encoder,
        ):
            wanted = params.base.resolution, method_named(section.method, NAME)
            training = anchoring_data(base, photos["train"], encoder, *wanted)
            probing = anchoring_data(base, photos["val"], encoder, *wanted) if held_out else training
            adapter, curve = train_anchoring(
                base, training, probing, section, running, start=start, recogniser=recogniser
            )
            values = {
                "photos": len(photos["train"]),
                "people": len(photos["train"].people),
                "photos_not_permitted": refused,
                "probe_held_out": held_out,
                "determinism": determinism_of(section, running),
                **curve_summary(curve),
            }
            if accelerator.is_main_process:
                made: dict[str, Any] = {"hashes": hashes, "networks": networks, "curve": curve, "values": values}
                write_results(NAME, adapter, base, params, outputs, **made)
    return values

"""train_imr: the IMR learns to give a person's identity tokens another expression and pose (paper section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import ADAPTER, ANCHORING, LOSSES_IMR, PROCESSED
from pipelines.core.params import Params
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
    from model.network.adapter import Adapter
    from model.network.base import Base

NAME = "train_imr"


@dataclass(frozen=True)
class Inputs:
    """Processed photos, the anchoring adapter, where caches and checkpoints are kept, and a chosen checkpoint."""

    processed: Path = Path(PROCESSED)
    anchoring: Path = Path(ANCHORING)
    state: Path = STATE
    resume_from: Path | None = None


@dataclass(frozen=True)
class Outputs(TrainingOutputs):
    """The complete adapter, the loss curve and the figures."""

    adapter: Path = Path(ADAPTER)
    losses: Path = Path(LOSSES_IMR)
    metrics: Path = Path("reports/train_imr/metrics.json")


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Train the IMR on split train; write the outputs and return what `metrics.json` holds.

    `imr`, `copy_source` and `person_mean` are mean squared errors of identity tokens on the people of split val with
    template landmarks; they are missing where no held-out person has two photos. A run that was killed goes on from
    its last checkpoint and ends with the same bytes. Raises UserError where photos have no identity or a model does
    not fit, StageFailed where the loss diverges or another process does not finish.
    """
    from model.training.encode import Desk, base_digest, folder_digest
    from model.training.reconfiguration import reconfiguration_data, require_identities, train_reconfiguration
    from model.training.runtime import make_accelerator

    section = params.train_imr
    with plain_errors(NAME):
        accelerator = make_accelerator(section.mixed_precision, params.base.dtype)
        photos, refused = photos_to_train_on(params, inputs.processed)
        require_identities(photos["train"], f"{inputs.processed}, split train")
        base = load_models(params, accelerator)
        adapter = _anchored(inputs.anchoring, base).to(accelerator.device)
        anchoring = folder_digest(inputs.anchoring)
        hashes = {"base": base_digest(base), "anchoring": anchoring}
        hashes |= {split: found.digest() for split, found in photos.items()}
        with training_run(
            NAME, section, hashes, accelerator, state=inputs.state, resume_from=inputs.resume_from
        ) as running:
            desk = Desk(inputs.state / "cache", section.cache_batch, accelerator)
            known: dict[str, Any] = {"resolution": params.base.resolution, "adapter_digest": anchoring}
            training = reconfiguration_data(base, adapter, photos["train"], desk, **known)
            probing = None
            if any(len(rows) > 1 for rows in photos["val"].by_person()):
                bank = training.motion.bank
                probing = reconfiguration_data(base, adapter, photos["val"], desk, **known, bank=bank)
            curve, answers = train_reconfiguration(base, adapter, training, probing, settings=section, run=running)
            values = {
                **answers,
                "photos": len(photos["train"]),
                "people": len(photos["train"].people),
                "photos_not_permitted": refused,
                "people_held_out": 0 if probing is None else len(photos["val"].people),
                **learned(curve),
            }
            if accelerator.is_main_process:
                write_results(adapter, base, params, outputs, curve=curve, values=values)
    return values


def _anchored(folder: Path, base: Base) -> Adapter:
    """Load the adapter of the anchoring stage; ValueError where it is missing or was trained on another base."""
    from model.network.adapter import Adapter

    adapter = Adapter.load(folder, base.unet)
    reference = adapter.base_reference
    if reference is None or reference.fingerprint != base.fingerprint():
        raise ValueError(f"{folder}: trained on another base model than {base.pipeline_folder}; run train_anchoring")
    if adapter.reconfigurator is not None:
        raise ValueError(f"{folder}: has an IMR already; expected the adapter that train_anchoring wrote")
    return adapter

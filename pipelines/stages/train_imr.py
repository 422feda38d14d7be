"""train_imr: train the IMR to change expression and pose in identity tokens (paper section 3.4)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import ADAPTER, ANCHORING, LOSSES_IMR
from pipelines.core.params import Params
from pipelines.core.paths import refuse_pointers
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
    from model.network.adapter import Adapter
    from model.network.base import Base

NAME = "train_imr"


@dataclass(frozen=True)
class Inputs(TrainingInputs):
    """The inputs of both trainings, and the adapter of train_anchoring."""

    anchoring: Path = Path(ANCHORING)


@dataclass(frozen=True)
class Outputs(TrainingOutputs):
    """The complete adapter, the loss curve and the metrics."""

    adapter: Path = Path(ADAPTER)
    losses: Path = Path(LOSSES_IMR)
    metrics: Path = Path("reports/train_imr/metrics.json")


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Train the IMR on split train; write the outputs and return the content of `metrics.json`.

    `imr`, `copy_source` and `person_mean` are mean squared errors of identity tokens on the people of split val, with
    template landmarks; these metrics are missing if no held-out person has two photos. A killed run resumes from its
    last checkpoint and ends with the same bytes. Raise UserError if photos have no identity or a model does not fit,
    StageFailed if the loss diverges or another process is still training.

    An adapter of a method without an IMR is passed on as it is: 0 steps, and a curve without losses.
    """
    from model.training.curve import LossCurve
    from model.training.encode import base_digest, folder_digest
    from model.training.reconfiguration import reconfiguration_data, require_identities, train_reconfiguration
    from model.training.runtime import make_accelerator

    section = params.train_imr
    with plain_errors(NAME), adapter_to_start_from(section.start_from, NAME, inputs.state) as start:
        networks = check_licences(params, {f"{NAME}.start_from": start})
        accelerator = make_accelerator(section.mixed_precision, params.base.dtype)
        photos, refused = photos_to_train_on(params, inputs.processed)
        held_out = any(len(rows) > 1 for rows in photos["val"].by_person())
        if trains := _takes_motion(inputs.anchoring):
            require_identities(photos["train"], f"{inputs.processed}, split train")
            check_kept(NAME, section, held_out)
        base = load_models(params, accelerator)
        if trains:
            check_base_of_start(start, base, allow_other=params.base.allow_other)
        adapter = _anchored(inputs.anchoring, base, allow_other=params.base.allow_other).to(accelerator.device)
        anchoring = folder_digest(inputs.anchoring)
        hashes = {"base": base_digest(base), "anchoring": anchoring, **_other_base(adapter, base)}
        hashes |= {split: part.digest() for split, part in photos.items()}
        if not trains:
            print(f"{NAME}: {adapter.method.name} has no IMR: {inputs.anchoring} is passed on", file=sys.stderr)
            untrained = {"steps": 0, "photos_not_permitted": refused}
            if accelerator.is_main_process:
                passed: dict[str, Any] = {"hashes": hashes, "networks": networks, "values": untrained}
                write_results(NAME, adapter, base, params, outputs, **passed, curve=LossCurve.of_no_step())
            return untrained
        if start is not None:
            hashes["start"] = folder_digest(start)
        hashes |= chosen_formats(params, section)
        with (
            training_run(NAME, section, hashes, accelerator, inputs) as running,
            record_encoder(params, section, accelerator, inputs) as encoder,
        ):
            common: dict[str, Any] = {"resolution": params.base.resolution, "adapter_digest": anchoring}
            training = reconfiguration_data(base, adapter, photos["train"], encoder, **common)
            probing = None
            if held_out:
                bank = training.motion.bank
                probing = reconfiguration_data(base, adapter, photos["val"], encoder, **common, bank=bank)
            curve, comparison = train_reconfiguration(
                base, adapter, training, probing, settings=section, run=running, start=start
            )
            values = {
                **comparison,
                "photos": len(photos["train"]),
                "people": len(photos["train"].people),
                "photos_not_permitted": refused,
                "people_held_out": 0 if probing is None else len(photos["val"].people),
                "determinism": determinism_of(section, running),
                **curve_summary(curve),
            }
            if accelerator.is_main_process:
                made: dict[str, Any] = {"hashes": hashes, "networks": networks, "curve": curve, "values": values}
                write_results(NAME, adapter, base, params, outputs, **made)
    return values


def _takes_motion(folder: Path) -> bool:
    """Return whether the method of an adapter has an IMR; raise ValueError if the adapter is missing or damaged."""
    from model.network.adapter_config import CONFIG, method_in, read_config

    refuse_pointers(folder.rglob("*"))
    return method_in(read_config(folder), folder / CONFIG).motion


def _other_base(adapter: Adapter, base: Base) -> dict[str, str]:
    """Return the fingerprint of the base that the adapter was anchored on; empty where it is `base`."""
    reference = adapter.base_reference
    if reference is None or reference.fingerprint == base.fingerprint():
        return {}
    return {"anchored_on": reference.fingerprint}


def _anchored(folder: Path, base: Base, *, allow_other: bool) -> Adapter:
    """Load the adapter of train_anchoring; raise ValueError if it is missing, has an IMR or has another base model."""
    from model.network.adapter import Adapter

    adapter = Adapter.load(folder, base.denoiser)
    reference = adapter.base_reference
    if reference is None or (reference.fingerprint != base.fingerprint() and not allow_other):
        its = "an unknown one" if reference is None else reference.pipeline
        raise ValueError(
            f"{folder}: trained on another base model than {base.pipeline_folder}, on {its}; run train_anchoring, or "
            "allow it (base.allow_other=true)"
        )
    adapter.check_trained_with(hair=base.hair, origin=folder)
    if adapter.reconfigurator is not None:
        raise ValueError(f"{folder}: has an IMR already; expected the adapter that train_anchoring wrote")
    return adapter

"""Shared parts of the two training stages: base models, lock and checkpoints, atomic outputs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.chain import PROCESSED
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.execution import note_cuda_peak, note_row, note_samples
from pipelines.core.files import atomic_folder, write_atomically
from pipelines.core.locks import hold, share
from pipelines.core.params import Params
from pipelines.core.paths import refuse_pointers, resolve
from pipelines.core.sections.training import Loop
from pipelines.core.words import counted
from pipelines.versions.state import CACHE, LOCK, RESUME, STATE

if TYPE_CHECKING:
    from model.network.adapter import Adapter
    from model.network.base import Base
    from model.training.curve import LossCurve
    from model.training.encode import RecordEncoder
    from model.training.loop import Run
    from model.training.photos import Photos

# Seconds to wait for another process of the same training, which a killed `dvc` may have left running.
_PATIENCE = 7200.0
# The adapter that an unfinished training started from, beside the checkpoints.
_START = "start-"
# Parameters that do not change the result.
_WITHOUT_EFFECT = {"checkpoint_every", "samples_every"}
# Parameters that came later, with the values that do what was done before.
_LATER = {"keep": "last", "determinism": "bitwise", "method": "dynamicid", "optimiser": "adamw"}
# What only some methods read; parameters and caches that are named alike.
_OF_PARTS = ("facial_parts", "parts")
# Parameters that, where the schedules do not depend on them, change only where a training ends and what its curve has.
_LENGTH = {"steps", "log_every"}


@dataclass(frozen=True)
class TrainingInputs:
    """The processed photos, the state with caches and checkpoints, and a checkpoint to resume from, or None."""

    processed: Path = Path(PROCESSED)
    state: Path = Path(STATE)
    resume_from: Path | None = None


@dataclass(frozen=True)
class TrainingOutputs:
    """The adapter folder, the loss curve and the metrics of a training."""

    adapter: Path
    losses: Path
    metrics: Path


@contextmanager
def plain_errors(stage: str) -> Iterator[None]:
    """Turn the exceptions of `model` into the command line's UserError and StageFailed."""
    from model.training.resume import Busy

    try:
        yield
    except ValueError as error:
        raise UserError(f"{stage}: {error}") from error
    except FloatingPointError as error:
        raise StageFailed(f"{error}: lower learning_rate") from error
    except Busy as error:
        raise StageFailed(str(error)) from error


def load_models(params: Params, accelerator: Any) -> Base:
    """Return the base models on the accelerator's device; raise ValueError unless they fit base.resolution."""
    from model.network.base import load_base

    base = load_base(
        resolve(params.base.pipeline),
        resolve(params.base.image_encoder),
        dtype=params.base.dtype,
        device=accelerator.device,
    )
    base.check_resolution(params.base.resolution, params.base.pipeline)
    return replace(base, hair=params.base.hair)


@contextmanager
def adapter_to_start_from(wanted: str | None, stage: str, state: Path) -> Iterator[Path | None]:
    """Yield the adapter folder of a registered version or a folder; None for None. Raise UserError if it is absent.

    A version is copied to the checkpoints of the stage, so that a training resumes while the registry is away. If the
    block succeeds, the copy is removed, unless another training uses it.
    """
    if wanted is None:
        yield None
        return
    from filelock import FileLock

    from pipelines.registry.model_uri import find_adapter, is_model_uri
    from pipelines.registry.settings import tracking_uri

    root = Path.cwd()
    if not is_model_uri(wanted):
        folder = find_adapter(wanted, root)
        refuse_pointers(folder.rglob("*"))
        yield folder
        return
    # In another registry, the same address is another model.
    address = hashlib.sha256(f"{tracking_uri(root)} {wanted}".encode()).hexdigest()
    folder = state / RESUME / stage / f"{_START}{address[:16]}"
    lock, used = folder.with_suffix(".lock"), StageFailed(f"{folder}: `forget` or `clean` is at work there")
    with share(lock, used):
        with FileLock(folder.with_suffix(".copying")):
            if not folder.is_dir():
                with atomic_folder(folder) as part:
                    shutil.copytree(find_adapter(wanted, root), part, dirs_exist_ok=True)
        refuse_pointers(folder.rglob("*"))
        yield folder
    with suppress(StageFailed), hold(lock, used):
        shutil.rmtree(folder)


def check_base_of_start(start: Path | None, base: Base, *, allow_other: bool) -> None:
    """Raise ValueError if the adapter that a training starts from belongs to another base, unless that is allowed."""
    from model.network.adapter_config import read_config

    if start is None or allow_other:
        return
    its = read_config(start)["base"]
    if its["fingerprint"] != base.fingerprint():
        raise ValueError(
            f"{start}: trained on another base model than {base.pipeline_folder}, on {its['pipeline']}; train new "
            "weights (start_from: null), or allow it (base.allow_other=true)"
        )


@contextmanager
def training_run(
    stage: str, settings: Loop, hashes: Mapping[str, str], accelerator: Any, inputs: TrainingInputs
) -> Iterator[Run]:
    """Yield the run of this training under its lock; if the block succeeds, remove the checkpoints.

    `hashes`: one for each thing that the training reads, by name. The main process holds the lock for all processes.
    The last checkpoint stays where a training with more steps would continue it.
    """
    from model.training.loop import Run
    from model.training.resume import Checkpoints, resume_key
    from model.training.runtime import deterministic

    shape = {"processes": str(accelerator.num_processes), "device": accelerator.device.type}
    # Without defaults that came later, the keys are those of earlier versions.
    ignored = _unread(settings) | {name for name, value in _LATER.items() if getattr(settings, name, None) == value}
    exact, family = (
        resume_key({**hashes, **shape}, settings.model_dump(mode="json", exclude=ignored | without))
        for without in (set(), _LENGTH)
    )
    key = family if settings.can_be_continued else exact
    left_out = ignored | (_LENGTH if settings.can_be_continued else set())
    checkpoints = Checkpoints(
        inputs.state / RESUME,
        stage,
        key,
        most=settings.steps,
        family=family,
        shape=f"{counted(accelerator.num_processes, 'process', 'processes')} on {shape['device']}",
        work=resume_key(hashes, settings.model_dump(mode="json", exclude=left_out)),
    )
    if inputs.resume_from is not None:
        checkpoints.checked(inputs.resume_from)
    main = accelerator.is_main_process
    lock = inputs.state / CACHE / LOCK
    removed = StageFailed(f"{lock.parent}: `forget` or `clean` is at work there; wait for it to end")
    with (
        checkpoints.locked(_PATIENCE) if main else nullcontext(),
        share(lock, removed) if main else nullcontext(),
    ):
        if main:
            checkpoints.adopt(exact)
        accelerator.wait_for_everyone()
        with deterministic(accelerator.device) as inexact:
            yield Run(accelerator, checkpoints, inputs.resume_from, note_row, note_samples, inexact)
        if main and accelerator.device.type == "cuda":
            import torch

            note_cuda_peak(torch.cuda.max_memory_allocated(accelerator.device))
        accelerator.wait_for_everyone()
        if main:
            checkpoints.clear(keep_last=settings.can_be_continued)


def photos_to_train_on(params: Params, processed: Path) -> tuple[dict[str, Photos], int]:
    """Return the permitted photos of splits train and val, and the number of photos that the rights policy refused."""
    from pipelines.core.weights.domains import check_domains, domains_of, network_domains
    from pipelines.data.training_data import permitted_photos
    from pipelines.versions.forgotten import refuse_forgotten

    refuse_forgotten(processed)
    check_domains(str(processed), network_domains(params, ("base",)), measured=domains_of(processed))
    permitted = permitted_photos(processed, ("train", "val"), params.rights)
    refused = sum(found.refused for found in permitted.values())
    return {split: found.photos for split, found in permitted.items()}, refused


def record_encoder(params: Params, section: Loop, accelerator: Any, inputs: TrainingInputs) -> RecordEncoder:
    """Return the encoder of photos and prompts, with the formats of `caches`."""
    from model.training.encode import RecordEncoder

    return RecordEncoder(inputs.state / CACHE, section.cache_batch, accelerator, params.caches.model_dump())


def chosen_formats(params: Params, section: Loop) -> dict[str, str]:
    """Return, as an input of a training, what `caches` has other than by default: rounding changes the results."""
    chosen = params.caches.model_dump(exclude_defaults=True, exclude=_unread(section))
    return {"caches": json.dumps(chosen, sort_keys=True)} if chosen else {}


def _unread(settings: Loop) -> set[str]:
    """Return the parameters and caches that change no result of a training with `settings`."""
    from model.network.methods import DYNAMICID, METHODS

    method = METHODS[getattr(settings, "method", DYNAMICID.name)]
    return _WITHOUT_EFFECT | (set() if method.facial_parts else set(_OF_PARTS))


def check_kept(stage: str, settings: Loop, held_out: bool) -> None:
    """Raise ValueError where the best weights are wanted and nobody is held out to choose them."""
    if settings.keep == "best" and not held_out:
        raise ValueError(
            f"{stage}.keep is best, and split val has nobody to measure with (for the IMR: nobody with two photos): "
            "raise preprocess.val_share, or keep the last weights"
        )


def determinism_of(settings: Loop, run: Run) -> str:
    """Return how exactly a training repeats: `fast`, or `bitwise` with the operations that do not, as some on GPUs."""
    besides = f" except {', '.join(sorted(run.inexact))}" if run.inexact and settings.determinism == "bitwise" else ""
    return f"{settings.determinism}{besides}"


def curve_summary(curve: LossCurve) -> dict[str, float | None]:
    """Return first value, last value and slope per 1,000 steps of probe and loss; the last loss is the smoothed one."""
    return {
        "probe_initial": curve.start,
        "probe_final": curve.rows[-1]["probe"],
        "loss_initial": curve.rows[0]["loss"],
        "loss_final": curve.rows[-1]["smoothed"],
        "loss_slope": curve.slope(),
        "probe_slope": curve.slope("probe"),
        **({} if curve.kept is None else {"kept_step": float(curve.kept)}),
    }


def write_results(
    stage: str,
    adapter: Adapter,
    base: Base,
    params: Params,
    outputs: TrainingOutputs,
    *,
    hashes: Mapping[str, str],
    networks: Sequence[Mapping[str, Any]],
    curve: LossCurve,
    values: Mapping[str, Any],
) -> None:
    """Write the adapter, its loss curve and its metrics; the adapter folder is replaced atomically.

    The adapter's configuration records what made it: the parameters, the `hashes` of all that the training read, the
    `networks` that formed it with their licences, and the hashes of both reports, which can thus be distinguished from
    the files of another training. A failed write leaves the old adapter and no temporary files. Raise OSError if the
    disk is full.
    """
    from model.training.resume import disk_full

    folder, losses, metrics = outputs.adapter, outputs.losses, outputs.metrics
    reports = {losses: curve.csv(), metrics: json.dumps(rounded(values), indent=2) + "\n"}
    section: Loop = getattr(params, stage)
    recorded = {"base", "rights", stage} | ({"caches"} if chosen_formats(params, section) else set())
    sections = params.model_dump(mode="json", by_alias=True, include=recorded)
    unread = _unread(section)
    sections |= {
        name: {
            key: value
            for key, value in sections[name].items()
            # Records of DynamicID stay as those of earlier versions.
            if key not in unread and (key, value) != ("method", _LATER["method"])
        }
        for name in {stage, "caches"} & recorded
    }
    adapter.made_by = {
        "stage": stage,
        "profile": params.profile,
        "inputs": dict(sorted(hashes.items())),
        "networks": [dict(network) for network in networks],
        "params": sections,
        "reports": {file.name: hashlib.sha256(text.encode()).hexdigest() for file, text in reports.items()},
        "before": adapter.made_by,
    }
    with atomic_folder(folder) as part:
        try:
            adapter.save(part, base.reference(params.base.pipeline, params.base.image_encoder))
        except Exception as error:
            if disk_full(error, part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
            raise
    for file, text in reports.items():
        write_atomically(file, text)
    print(f"{folder}: written; losses in {losses}", file=sys.stderr)


def rounded(values: Any) -> Any:
    """Return JSON values with six significant digits, as in the loss curve."""
    if isinstance(values, Mapping):
        return {name: rounded(value) for name, value in values.items()}
    return float(f"{values:.6g}") if isinstance(values, float) else values

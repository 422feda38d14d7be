"""Check the machine: Python, Java, disk, memory and GPU against the profile."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from model.processors import cores
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.operations.doctor.finding import CheckResult
from pipelines.versions.dvc import cache_folder
from pipelines.versions.state import shared_state

_GIB = 2**30
_TRAININGS = ("train_anchoring", "train_imr", "evaluate")
# A Python worker of Spark with its networks, and Java: docs/log/scaling.md.
_WORKER_GIB, _JAVA_GIB = 1.2, 1.0
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def machine(params: Params, root: Path, dataset_bytes: int) -> list[CheckResult]:
    """Return the findings about this machine; `dataset_bytes` of photos will be processed. Nothing is loaded."""
    return [_python(), _java(), *_disks(root, dataset_bytes), _memory(params), _gpu(params)]


def _python() -> CheckResult:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return CheckResult("python", "good", f"Python {found}")
    return CheckResult("python", "stop", f"Python {found}, expected 3.11", "`make env PYTHON=/path/to/python3.11`")


def _java() -> CheckResult:
    from pipelines.data.spark import check_java

    try:
        check_java()
    except UserError as error:
        what, _, how = str(error).partition("; ")
        return CheckResult("java", "stop", what, how or "install Java 17", ("preprocess",))
    return CheckResult("java", "good", "Java 17 or later")


def _disks(root: Path, dataset_bytes: int) -> list[CheckResult]:
    """Return a finding for each file system on which the checkout, its state and the cache of DVC are."""
    # Photos become slices in the state, which may be on another disk, and rows, which are also in the cache of DVC;
    # models and their checkpoints come on top.
    cache = cache_folder(root) if (root / ".dvc" / "config").is_file() else root
    needed: dict[int, tuple[Path, int]] = {}
    for place, size in ((root, _GIB // 4), (shared_state(root), dataset_bytes), (cache, dataset_bytes)):
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        first, before = needed.get(there.stat().st_dev, (there, 0))
        needed[there.stat().st_dev] = (first, before + size)
    return [_disk(folder, size) for folder, size in needed.values()]


def _disk(folder: Path, needed: int) -> CheckResult:
    free = shutil.disk_usage(folder).free
    text = f"{free / _GIB:,.1f} GiB free on the disk of {folder}, about {needed / _GIB:,.1f} GiB needed"
    if free < needed:
        return CheckResult(
            "disk", "stop", text, "free some space (`dynamicid clean` lists what can go), or work elsewhere"
        )
    return CheckResult("disk", "good", text)


def _memory(params: Params) -> CheckResult:
    import psutil

    master = re.fullmatch(r"local\[(\d+|\*)\]", params.preprocess.master)
    workers = 0 if master is None else cores() if master[1] == "*" else int(master[1])
    needed = max(_JAVA_GIB + workers * _WORKER_GIB, 1.0 + 2 * _weights(params) / _GIB)
    memory = psutil.virtual_memory()
    text = f"{memory.total / _GIB:,.1f} GiB of memory, about {needed:,.1f} needed ({workers} workers of preprocess)"
    if memory.total / _GIB < needed:
        return CheckResult("memory", "stop", text, "fewer workers: preprocess.master=local[1]; or a larger machine")
    if memory.available / _GIB < needed:
        free = f"{text}, {memory.available / _GIB:,.1f} of them free now"
        return CheckResult("memory", "warning", free, "end other programs first")
    return CheckResult("memory", "good", text)


def _gpu(params: Params) -> CheckResult:
    precisions = {params.train_anchoring.mixed_precision, params.train_imr.mixed_precision}
    half = "fp16" in precisions or params.base.dtype == "float16"
    if not half and params.base.resolution <= 128:
        return CheckResult("gpu", "good", "this profile needs none")
    import torch

    needed = _gpu_bytes(params)
    takes = "" if needed is None else f", about {needed / _GIB:.0f} GiB needed"
    if not torch.cuda.is_available():
        if half:
            mend = "use bf16 (train_anchoring.mixed_precision, train_imr.mixed_precision, base.dtype=bfloat16)"
            return CheckResult("gpu", "stop", "no CUDA device, and float16 needs one", mend, _TRAININGS)
        text = f"no CUDA device{takes}: a training at {params.base.resolution} px takes weeks on CPUs"
        return CheckResult("gpu", "warning", text, "use a machine with a GPU, or the profile tiny")
    total = torch.cuda.get_device_properties(0).total_memory
    text = f"{torch.cuda.get_device_name(0)} with {total / _GIB:.0f} GiB{takes}"
    if needed is not None and total < needed:
        mend = (
            "lower train_anchoring.batch_size and train_imr.ldc_targets, set gradient_checkpointing=true and "
            "optimiser=adamw_8bit in both trainings, or use another GPU"
        )
        return CheckResult("gpu", "stop", text, mend, _TRAININGS)
    return CheckResult("gpu", "good", text)


def _gpu_bytes(params: Params) -> int | None:
    """Return what the larger of both trainings takes on a GPU, None where that is not known: without a UNet here."""
    import torch

    from model.network.methods import METHODS
    from model.training.memory import training_memory

    try:
        unet, vision = (_config(params.base.pipeline, "unet"), _config(params.base.image_encoder, "."))
    except (OSError, ValueError):
        return None
    if unet.get("_class_name") != "UNet2DConditionModel" or "hidden_size" not in vision:
        return None
    anchoring, imr = params.train_anchoring, params.train_imr
    # Of a base of full size, it takes seconds.
    counted = {
        checkpointing: training_memory(
            unet,
            int(vision["hidden_size"]),
            anchoring.sizes,
            dtype=getattr(torch, params.base.dtype),
            checkpointing=checkpointing,
            method=METHODS[anchoring.method],
        )
        for checkpointing in {anchoring.gradient_checkpointing, imr.gradient_checkpointing}
    }
    first, second = (counted[section.gradient_checkpointing] for section in (anchoring, imr))
    larger = max(
        sum(first.parts(anchoring.batch_size, anchoring.optimiser).values()),
        second.base + 4 * second.weights + second.copies + imr.ldc_targets * (second.kept + second.recomputed),
    )
    # Until the caches are full, the other networks are there, too; a GiB is what the libraries take.
    others = _weights(params, but="unet") * _BYTES[params.base.dtype] // 4
    return larger + others + _GIB


def _config(folder: str, part: str) -> dict[str, Any]:
    return dict(json.loads((resolve(folder) / part / "config.json").read_bytes()))


def _weights(params: Params, but: str = "") -> int:
    """Return the bytes of the base models' weights on disk except those in folder `but`, 0 where they are missing."""
    folders = (resolve(params.base.pipeline), resolve(params.base.image_encoder))
    files = (file for folder in folders for file in folder.rglob("*.safetensors"))
    return sum(file.stat().st_size for file in files if file.parent.name != but)

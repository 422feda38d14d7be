"""Load the analysers of a worker process once; on a cluster, check that they have the version of the driver."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.processors import use_one_thread
from pipelines.core.errors import UserError
from pipelines.core.sections.data import Preprocess

if TYPE_CHECKING:
    from pipelines.data.faces.analysis import Analyser

_WARM_SIDE = 256


def worker_analyser(params: Preprocess, given: Preprocess | None, version: str | None) -> Analyser:
    """Return this process's analysers, loaded at the first call.

    `params` has the paths as the driver resolves them, `given` as they were written (a worker that got them in an
    archive finds them in its own folder). Raises UserError where `version` is given and this machine's networks,
    libraries or code have another version.
    """
    return _load(_json(params), None if given is None else _json(given), version)


def use_own_gpu(task: Any) -> None:
    """Restrict this process to the GPU that Spark gave to its first task (`spark.task.resource.gpu.amount`).

    Networks are loaded once per process and stay on that GPU. Without this setting of Spark, the machine's first GPU is
    used. `task` is the TaskContext, None outside of Spark.
    """
    given = {} if task is None else task.resources()
    if "gpu" in given:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(given["gpu"].addresses))


def _json(params: Preprocess) -> str:
    return params.model_dump_json(by_alias=True)


@lru_cache(maxsize=1)
def _load(params: str, given: str | None, version: str | None) -> Analyser:
    from pipelines.data.faces.analysis import load_analyser
    from pipelines.data.faces.version import analyser_version

    use_one_thread()
    settings = Preprocess.model_validate_json(params)
    try:
        here = analyser_version(settings) if version is not None else None
    except UserError:
        if given is None:
            raise
        settings = Preprocess.model_validate_json(given)
        here = analyser_version(settings)
    if here != version:
        raise UserError(
            f"the worker on {socket.gethostname()} has other networks, libraries or code than the driver: "
            "ship the same environment to every machine (docs/guides/cluster.md)"
        )
    analyser = load_analyser(settings)
    # Warm up: networks allocate their memory at the first picture.
    analyser.analyse_images([np.zeros((_WARM_SIDE, _WARM_SIDE, 3), np.uint8)])
    return analyser

"""`dynamicid preprocess`: analyse every photo of a dataset version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit
from pipelines.core.chain import FACES, PROCESSED, VERDICT


def preprocess(
    faces: Annotated[Path, argument("Dataset folder.", metavar="DIR")] = Path(FACES),
    out: Annotated[Path, option("Folder for the preprocessed rows; it is replaced.", metavar="DIR")] = Path(PROCESSED),
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    master: Annotated[
        str | None,
        option(
            "Spark master; replaces preprocess.master.",
            metavar="local[N]|spark://HOST:PORT",
            envvar="DYNAMICID_SPARK_MASTER",
        ),
    ] = None,
) -> None:
    """Analyse every photo with Spark, one row each: face, landmarks, pose, identity embedding, captions, split."""
    from pipelines.stages.preprocess import Inputs, Outputs, run
    from pipelines.versions.places import note_outside
    from pipelines.versions.state import PREPROCESS, shared_state

    # The chain's verdict concerns the chain's dataset; any other folder needs none.
    verdict = Path(VERDICT) if faces == Path(FACES) and Path(VERDICT).is_file() else None
    if master is not None:
        overrides = [*(overrides or ()), f"preprocess.master={master}"]
    note_outside(Path.cwd(), out, PROCESSED)
    report = run(
        read_params(params, overrides), Inputs(faces, verdict), Outputs(out, shared_state(Path()) / PREPROCESS)
    )
    emit(report)

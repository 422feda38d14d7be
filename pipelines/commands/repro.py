"""`dynamicid repro` and `dynamicid record`: bring stages up to date with DVC and record them in MLflow."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from rich.rule import Rule

from pipelines.commands.options import DEFAULT_PARAMS, argument, option
from pipelines.commands.output import emit, emit_if_asked, warn
from pipelines.core.chain import FACES, METRICS, PROCESSED, known_stages
from pipelines.core.screen import say, show
from pipelines.versions.dvc import check_stages, repro_stage
from pipelines.versions.older import warn_if_older


def repro(
    stages: Annotated[list[str] | None, argument("Stages in order; default: all.")] = None,
    force: Annotated[bool, option("Run stages even if nothing changed.")] = False,
    pull: Annotated[bool, option("Fetch missing inputs and cached results from the DVC remote.")] = False,
    record: Annotated[bool, option("Record each stage in MLflow when it is up to date.")] = True,
) -> None:
    """Run `dvc repro` stage by stage; the results of a stage with unchanged inputs come from the cache."""
    from pipelines.core.params import load_params
    from pipelines.operations.doctor.examine import refuse_what_cannot_end
    from pipelines.registry.live import live_run
    from pipelines.versions.dataset_version import require_dataset

    names = check_stages(list(stages or ()))
    root = Path.cwd()
    params = load_params(root / DEFAULT_PARAMS)
    refuse_what_cannot_end(params, root, tuple(names))
    if any(FACES in stage.inputs for stage in known_stages() if stage.name in names):
        require_dataset(root)
    runs: dict[str, str | None] = {}
    for position, name in enumerate(names, 1):
        show(Rule(f"{name} ({position}/{len(names)})"))
        with live_run(root, name) if record else nullcontext():
            repro_stage(root, name, force=force, pull=pull)
        _remove_stale_pages(name)
        runs[name] = None
        if record:
            from pipelines.registry.recorder import Discarded, record_stage

            try:
                runs[name] = record_stage(root, name, params)
            except Discarded as discarded:
                warn(str(discarded))
            else:
                say(f"{name}: recorded as MLflow run {runs[name]}")
    warn_if_older(root, *_read_by(names))
    emit_if_asked(runs)


def record(stages: Annotated[list[str] | None, argument("Stages; default: all.")] = None) -> None:
    """Record the current result of each stage in MLflow: once, and again where somebody deleted its run."""
    from pipelines.core.params import load_params
    from pipelines.registry.recorder import record_stage

    root = Path.cwd()
    params = load_params(root / DEFAULT_PARAMS)
    names = check_stages(list(stages or ()))
    for name in names:
        _remove_stale_pages(name)
    warn_if_older(root, *_read_by(names))
    emit({name: record_stage(root, name, params, anew=True) for name in names})


def _remove_stale_pages(name: str) -> None:
    """Remove Data Docs of another verdict than the present one of the stage `name`, and say how they are written."""
    from pipelines.data.validation.data_docs import remove_stale
    from pipelines.data.validation.verdict import VERDICT

    stage = next(one for one in known_stages() if one.name == name)
    for output in map(Path, stage.outputs):
        if output.name == VERDICT and (docs := remove_stale(output.parent)) is not None:
            command = name.replace("_", "-")
            warn(f"{docs}: pages of an earlier verdict, removed; `dynamicid {command}` writes those of this one")


def _read_by(names: list[str]) -> list[str]:
    """Return which results that are compared with the dataset the stages `names` read or write."""
    touched = {path for one in known_stages() if one.name in names for path in (*one.inputs, *one.outputs)}
    return [path for path in (PROCESSED, METRICS) if path in touched]

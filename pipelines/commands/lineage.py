"""`dynamicid lineage` and `dynamicid reproduce`: print and restore what a registered version was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.commands.options import NewFolder, argument, option
from pipelines.commands.output import emit, json_wanted, say_done, warn
from pipelines.core.errors import StageFailed
from pipelines.core.screen import say
from pipelines.versions.git import run_git

if TYPE_CHECKING:
    from pipelines.registry.origins import Origins


def lineage(
    thing: Annotated[
        str, argument("models:/dynamicid/3; or a dataset version, commit, Airflow run or hash.", metavar="URI|THING")
    ],
    name: Annotated[str, option("Name of the registered model.")] = "dynamicid",
) -> None:
    """Print the dataset version, git commit, stage hashes, Airflow run and evaluation set of a registered version.

    For a dataset version, commit, Airflow run or hash: print the registered versions that came from it.
    """
    from pipelines.registry import origins
    from pipelines.registry.model_uri import is_model_uri

    if not is_model_uri(thing):
        found = origins.versions_from(Path.cwd(), name, thing)
        if not found:
            raise StageFailed(f"{thing}: {_why_none(thing, name)}")
        if json_wanted():
            emit(found)
            return
        say(f"{thing}: {', '.join(found)}")
        return
    known = origins.origins_of(Path.cwd(), thing)
    if json_wanted():
        emit(known)
        return
    dirty = " (with changes that were not committed)" if known.git_dirty else ""
    rows = [
        ("model", known.model),
        ("dataset version", _dataset(known)),
        ("git commit", f"{known.git_commit or 'unknown'}{dirty}"),
        ("snapshot", known.snapshot),
        ("evaluation set", known.evaluation_set),
        ("Airflow run", known.airflow_run_id),
        ("adapter", known.adapter_hash),
        *((f"stage {stage}", f"{one.lock_hash}  run {one.run_id or '–'}") for stage, one in known.stages.items()),
        *((f"output {path}", digest) for path, digest in sorted(known.outputs.items())),
        *((f"decision {number}", _describe(one)) for number, one in enumerate(known.decisions, 1)),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"{label:<{width}}  {value or '–'}")
    _warn_of_figures(thing)


def reproduce(
    uri: Annotated[str, argument("models:/dynamicid/3 or models:/dynamicid@champion.", metavar="URI")], out: NewFolder
) -> None:
    """Restore code, parameters, data and results of a registered version; exit 1 if `dvc status` is not clean there."""
    from pipelines.registry.reproduce import reproduce as restore

    done = restore(Path.cwd(), uri, out)
    emit(done)
    if done.changed:
        raise StageFailed(f"{done.folder}: dvc status is not clean: {json.dumps(done.changed)}")
    _warn_of_figures(uri)
    data = done.dataset_version or "its data"
    say_done(f"{done.model}: {data} and its code are in {done.folder}; dvc status is clean")


def _warn_of_figures(uri: str) -> None:
    """Print where the figures of a version are not those of its adapter."""
    from pipelines.registry.champion_metrics import figures_problem
    from pipelines.registry.registry import find_version, open_registry

    client = open_registry(Path.cwd())
    if problem := figures_problem(client, find_version(client, uri)):
        warn(problem)


def _why_none(thing: str, name: str) -> str:
    if run_git(Path.cwd(), "rev-parse", "--verify", "--quiet", f"{thing}^{{commit}}").code == 0:
        return f"no version of {name} came from it"
    return f"no tag or commit of this checkout, and no run or hash of a version of {name}; `git tag` lists the tags"


def _dataset(known: Origins) -> str:
    if known.dataset_md5 is None:
        return "unknown: the adapter was not trained in this checkout"
    return f"{known.dataset_version or 'no name'} (DVC {known.dataset_md5})"


def _describe(decision: dict) -> str:  # type: ignore[type-arg]
    why = f": {'; '.join(decision['reasons'])}" if decision["reasons"] else ""
    before = "none" if decision["champion"] is None else f"v{decision['champion']}"
    return f"{decision['decision']} by {decision['by']} at {decision['at']} (champion: {before}){why}"

"""`dynamicid ingest`: add photos to the dataset and make a version of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import (
    DEFAULT_PARAMS,
    AcceptUnrelated,
    Overrides,
    ParamsFile,
    argument,
    option,
    read_params,
)
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES
from pipelines.core.errors import UserError
from pipelines.core.words import counted


def ingest(
    source: Annotated[Path, argument("Folder of photos, list of photos, tar shard or Parquet.", metavar="SRC")],
    *,
    out: Annotated[Path, option("Dataset folder to create or add to.", metavar="DIR")] = Path(FACES),
    layout: Annotated[
        str,
        option("auto, flat, sidecars, identity-folders, consistentid, webdataset or huggingface.", metavar="LAYOUT"),
    ] = "auto",
    identity_depth: Annotated[
        int | None, option("For identity-folders: number of leading folders that name a person (default 1).", min=1)
    ] = None,
    origin: Annotated[str | None, option("Where the photos come from.", "--source")] = None,
    licence: Annotated[str | None, option("Licence under which the photos are used.")] = None,
    consent: Annotated[str | None, option("What the people in the photos consented to.")] = None,
    version: Annotated[
        bool | None,
        option(
            "Put DIR under DVC and tag its version; default: if DIR is in a DVC repository.", "--version/--no-version"
        ),
    ] = None,
    accept_unmatched: Annotated[
        bool, option("Go on although labels, listed in the summary, could not be joined to a photo.")
    ] = False,
    accept_unrelated: AcceptUnrelated = False,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Add photos from SRC that the dataset does not hold yet, and make a version faces-vN of it.

    Identity, prompts, consent, licence and source that came with the photos are joined to them, or the summary names
    them, nothing is added and the exit code is 1.
    """
    from pipelines.data.ingest.summary import UnmatchedLabels, print_summary
    from pipelines.stages.ingest import Inputs, Outputs, run
    from pipelines.versions.continuity import check_continues
    from pipelines.versions.dataset_version import make_version, restore_present
    from pipelines.versions.dvc import dvc_root
    from pipelines.versions.git_tags import check_repository
    from pipelines.versions.places import note_outside

    given = read_params(params, overrides)
    labels = {"source": origin, "licence": licence, "consent": consent}
    section = given.ingest.model_copy(update={key: value for key, value in labels.items() if value is not None})
    root = None if version is False else dvc_root(out.parent)
    if root is not None:
        check_repository(root)
        restore_present(root, out.resolve().relative_to(root).as_posix())
    elif version:
        raise UserError(f"{out}: not in a DVC repository, so no version can be kept; `dvc init`, or --no-version")
    elif version is None:
        say(f"{out} is not in a DVC repository: it gets no version")
    inputs = Inputs(source, layout, identity_depth, accept_unmatched)
    note_outside(Path.cwd(), out, FACES)
    try:
        summary = run(given.model_copy(update={"ingest": section}), inputs, Outputs(out))
    except UnmatchedLabels as error:
        print_summary(error.summary, out)
        emit({**asdict(error.summary), "version": None})
        raise
    print_summary(summary, out)
    result = {**asdict(summary), "version": None}
    if root is not None:
        if not accept_unrelated:
            check_continues(root, out.resolve().relative_to(root).as_posix())
        people = counted(summary.identities, "person", "people")
        message = f"{counted(summary.rows, 'photo')} of {people} in {summary.bytes} bytes"
        made = make_version(root, out.resolve(), message)
        say(f"version {made.tag}")
        result["version"] = asdict(made)
    emit(result)

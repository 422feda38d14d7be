"""`dynamicid curate`: turn unlabelled photos into a balanced dataset labelled by identity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit
from pipelines.core.errors import UserError


def curate(
    source: Annotated[Path, argument("Folder of photos, with its subfolders.", metavar="SRC")],
    *,
    out: Annotated[Path, option("Folder for the selected photos; it is replaced.", metavar="DIR")],
    labels: Annotated[
        bool, option("Folder names are identities: check them and list photos that do not fit.", "--labels/--no-labels")
    ] = False,
    identity_depth: Annotated[
        int | None, option("With --labels: number of leading folders that name a person (default 1).", min=1)
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Find the faces in SRC, drop duplicates and unusable ones, group by identity, write varied photos of each."""
    from pipelines.data.curation.build import Inputs, Outputs, run
    from pipelines.versions.forgotten import gate
    from pipelines.versions.places import note_copy
    from pipelines.versions.state import CURATE, shared_state

    if identity_depth is not None and not labels:
        raise UserError("--identity-depth needs --labels: it states which folders are labels")
    depth = (identity_depth or 1) if labels else 0
    forgotten = gate(source, out)
    inputs = Inputs(source, depth, forgotten.reason if forgotten else None)
    note_copy(Path.cwd(), out, "curate")
    report = run(read_params(params, overrides), inputs, Outputs(out, shared_state(Path()) / CURATE))
    emit(report)

"""`dynamicid validate`: may this dataset be used?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, read_params
from pipelines.core.chain import FACES, VERDICT


def validate(
    faces: Annotated[Path, typer.Argument(help="Dataset folder.", metavar="DIR")] = Path(FACES),
    out: Annotated[Path, typer.Option(help="Folder of verdict.json.", metavar="DIR")] = Path(VERDICT).parent,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Judge the metadata of a dataset with Great Expectations: verdict.json, and Data Docs beside it."""
    from pipelines.stages.validate import Inputs, Outputs, run

    docs = out.parent / "data_docs" / "validate"
    read = read_params(params, overrides)
    try:
        verdict = run(read, Inputs(faces), Outputs(out, docs))
    finally:
        if (docs / "index.html").is_file():
            typer.echo(f"Data Docs: {docs / 'index.html'}", err=True)
    typer.echo(f"{verdict.rows:,} photos, {len(verdict.findings)} expectations, all that must hold do", err=True)

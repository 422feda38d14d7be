"""`dynamicid validate-processed`: may anything be trained on these rows?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, read_params
from pipelines.core.chain import PROCESSED, VERDICT_PROCESSED


def validate_processed(
    processed: Annotated[Path, typer.Argument(help="Folder that preprocess wrote.", metavar="DIR")] = Path(PROCESSED),
    out: Annotated[Path, typer.Option(help="Folder of verdict.json.", metavar="DIR")] = Path(VERDICT_PROCESSED).parent,
    faces: Annotated[
        Path | None, typer.Option(help="Dataset they came from: every photo must have its row.", metavar="DIR")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Judge what preprocessing found with Great Expectations: verdict.json, and Data Docs beside it."""
    from pipelines.stages.validate_processed import Inputs, Outputs, run

    docs = out.parent / "data_docs" / "validate_processed"
    read = read_params(params, overrides)
    try:
        verdict = run(read, Inputs(processed, faces), Outputs(out, docs))
    finally:
        if (docs / "index.html").is_file():
            typer.echo(f"Data Docs: {docs / 'index.html'}", err=True)
    typer.echo(f"{verdict.rows:,} rows, {len(verdict.findings)} expectations, all that must hold do", err=True)

"""Options that every stage command shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from pipelines.core.params import Params

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.", metavar="FILE")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one parameter, repeatable: section.key=value.", metavar="SECTION.KEY=VALUE"),
]
# A scheduler skips a task that ends with this code.
SkipCode = Annotated[int, typer.Option(help="Exit code where there is nothing to do.", metavar="CODE")]

DEFAULT_PARAMS = Path("params.yaml")


def read_params(file: Path, overrides: list[str] | None) -> Params:
    """Load the parameters of a stage command; overrides are refused under DVC, which would not see them."""
    from pipelines.core.params import load_params

    if overrides and os.environ.get("DVC_STAGE"):
        raise UserError(
            f"--set {overrides[0]} under DVC stage {os.environ['DVC_STAGE']}: DVC would not see the value; "
            "write it to params.yaml with `dynamicid configure --set …` first"
        )
    return load_params(file, overrides or ())

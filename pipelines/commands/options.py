"""Options that commands share, and how each is described."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.core.chain import ADAPTER
from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from pipelines.core.params import Params


def option(meaning: str, *names: str, **settings: Any) -> Any:
    """Describe an option: what --help says, its names where they are not the parameter's, what else typer takes."""
    return typer.Option(*names, help=meaning, **settings)


def argument(meaning: str, **settings: Any) -> Any:
    """Describe an argument: what --help says, and what else typer takes."""
    return typer.Argument(help=meaning, **settings)


ParamsFile = Annotated[Path, option("Parameter file.", "--params", metavar="FILE")]
Overrides = Annotated[
    list[str] | None,
    option("Override one parameter, repeatable: section.key=value.", "--set", metavar="SECTION.KEY=VALUE"),
]
# A scheduler skips a task that ends with this code.
SkipCode = Annotated[int, option("Exit code where there is nothing to do.", metavar="CODE")]

AdapterChoice = Annotated[
    str | None,
    option(
        "Adapter folder, or a registered model such as models:/dynamicid@champion. By default the one just "
        f"trained ({ADAPTER}), or where there is none the shipped one.",
        "--adapter",
    ),
]

DEFAULT_PARAMS = Path("params.yaml")


@contextmanager
def wrong_use(*errors: type[Exception], before: str = "") -> Iterator[None]:
    """Say of errors that what was given does not fit: exit 2, and the message alone."""
    try:
        yield
    except errors as error:
        raise UserError(f"{before}{error}") from error


def read_params(file: Path, overrides: list[str] | None) -> Params:
    """Load the parameters of a stage command; overrides are refused under DVC, which would not see them."""
    from pipelines.core.params import load_params

    if overrides and os.environ.get("DVC_STAGE"):
        raise UserError(
            f"--set {overrides[0]} under DVC stage {os.environ['DVC_STAGE']}: DVC would not see the value; "
            "write it to params.yaml with `dynamicid configure --set …` first"
        )
    return load_params(file, overrides or ())

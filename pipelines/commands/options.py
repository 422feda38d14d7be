"""Options that commands share."""

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
    """Return a typer option: its help text, its names if they differ from the parameter's, and typer's settings."""
    return typer.Option(*names, help=meaning, **settings)


def argument(meaning: str, **settings: Any) -> Any:
    """Return a typer argument: its help text and typer's settings."""
    return typer.Argument(help=meaning, **settings)


def command_group(meaning: str) -> typer.Typer:
    """Return a typer application for subcommands, with its help text."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=meaning, no_args_is_help=True)


ParamsFile = Annotated[Path, option("Parameter file.", "--params", metavar="FILE")]
Overrides = Annotated[
    list[str] | None, option("Change one parameter for this call; repeatable.", "--set", metavar="SECTION.KEY=VALUE")
]
NewFolder = Annotated[Path, option("Folder to write; it must not exist yet.", metavar="DIR")]
RunId = Annotated[
    str, option("Scheduler's id of the run.", "--run-id", metavar="ID", envvar="DYNAMICID_AIRFLOW_RUN_ID")
]
# Airflow skips a task that ends with this code.
SkipCode = Annotated[int, option("Exit code if there is nothing to do.", metavar="CODE")]

AcceptUnrelated = Annotated[
    bool, option("Make a version though no photo of it is in an earlier version of the dataset.")
]
AdapterChoice = Annotated[
    str | None,
    option(
        "Adapter folder, or a registered model such as models:/dynamicid@champion. "
        f"Default: the adapter just trained ({ADAPTER}), or else the shipped one.",
        "--adapter",
    ),
]

DEFAULT_PARAMS = Path("params.yaml")
PAGE_PORT = 7860


@contextmanager
def wrong_use(*errors: type[Exception], before: str = "") -> Iterator[None]:
    """Turn `errors` into a UserError with the same message after `before`: exit code 2, no traceback."""
    try:
        yield
    except errors as error:
        raise UserError(f"{before}{error}") from error


def read_params(file: Path, overrides: list[str] | None) -> Params:
    """Load the parameters of a command; raise UserError for overrides under DVC, which would not see them."""
    from pipelines.core.params import load_params
    from pipelines.versions.places import is_experiment

    if overrides and os.environ.get("DVC_STAGE"):
        raise UserError(
            f"--set {overrides[0]} under DVC stage {os.environ['DVC_STAGE']}: DVC would not see the value; "
            "write it to params.yaml with `dynamicid configure --set …` first"
        )
    try:
        return load_params(file, overrides or ())
    except UserError as error:
        if "DVC_STAGE" not in os.environ or is_experiment(Path.cwd()):
            raise
        raise UserError(f"{error} (`git checkout {file}` takes back what an experiment set)") from None

"""`dynamicid configure`: write `params.yaml` from a profile and changes, before DVC reads it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile
from pipelines.core.errors import UserError
from pipelines.core.params import dump_params, overridden_tree
from pipelines.core.paths import project_root


def configure(
    profile: Annotated[str | None, typer.Option(help="Profile to start from: a file in profiles/.")] = None,
    overrides: Overrides = None,
    file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write the parameter file: a profile (default: the present file) with every --set applied."""
    source = file
    if profile is not None:
        source = project_root() / "profiles" / f"{profile}.yaml"
        if not source.is_file():
            known = ", ".join(sorted(path.stem for path in source.parent.glob("*.yaml")))
            raise UserError(f"profile {profile!r}: no file {source.name} in profiles/; there are {known}")
    dump_params(overridden_tree(source, overrides or ()), file)
    typer.echo(f"{file}: profile {profile or 'unchanged'}, {len(overrides or ())} changes", err=True)

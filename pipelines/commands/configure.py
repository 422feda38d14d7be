"""`dynamicid configure`: write `params.yaml` from a profile and changes, before DVC reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.errors import UserError
from pipelines.core.paths import project_root
from pipelines.core.words import counted


def configure(
    profile: Annotated[str | None, option("Name of a profile in profiles/ to start from.")] = None,
    overrides: Overrides = None,
    file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write the parameter file: a profile (default: the existing file) with every --set applied."""
    from pipelines.core.params import check_params, dump_params, overridden_tree

    source = file if profile is None else find_profile(profile)
    tree = overridden_tree(source, overrides or ())
    check_params(tree, str(source))
    dump_params(tree, file)
    changes = list(overrides or ())
    say(f"{file}: profile {profile or 'unchanged'}, {counted(len(changes), 'change')}")
    emit_if_asked({"params": str(file), "profile": profile, "changes": changes})


def find_profile(name: str) -> Path:
    """Return the file of a profile of the project; raise UserError where it, or the folder, is missing."""
    from pipelines.core.params import profile_file

    folder, asked = project_root() / "profiles", f"profile {name!r}"
    if not folder.is_dir():
        how = "copy a profile from a checkout of the project, and name the copy with --params"
        raise UserError(f"{asked}: this installation has no profiles ({folder}); {how}")
    return profile_file(folder, name, asked)

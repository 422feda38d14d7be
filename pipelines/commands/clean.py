"""`dynamicid clean`: old run workspaces, checkpoints and caches, and data that nothing names any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, say_done
from pipelines.core.errors import UserError


def clean(
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    apply: Annotated[bool, option("Remove; without it only say what would go.", "--apply")] = False,
    unsaved: Annotated[bool, option("Also workspaces whose run was never saved.", "--unsaved")] = False,
    data: Annotated[
        bool, option("Also data in the DVC cache that no tag, branch or saved run names.", "--data")
    ] = False,
) -> None:
    """Remove what the section `keeping` of the parameters lets go; JSON on stdout lists everything looked at."""
    if data and not apply:
        raise UserError("--data takes effect with --apply only: what DVC would remove is not known before")
    params = read_params(file, overrides)
    from pipelines.operations.retention import remove, remove_unreferenced_data, survey

    root = Path.cwd()
    items = survey(root, params.keeping, unsaved=unsaved)
    going = [item for item in items if item.kept is None]
    for item in items:
        said = f"goes ({item.size} bytes)" if item.kept is None else f"stays: {item.kept}"
        say(f"{item.kind} {item.path}: {said}")
    if apply:
        count, size = remove(going)
        if data:
            remove_unreferenced_data(root)
        say_done(f"removed {count} things of {size} bytes")
    else:
        say(f"{len(going)} things of {sum(item.size for item in going)} bytes would go; --apply removes them")
    emit({"applied": apply, "items": [item.plain() for item in items]})

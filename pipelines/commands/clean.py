"""`dynamicid clean`: remove old run workspaces, checkpoints and caches, and unreferenced data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, say_done
from pipelines.core.errors import UserError


def clean(
    *,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    apply: Annotated[bool, option("Remove; without it, only list what would be removed.", "--apply")] = False,
    dry_run: Annotated[bool, option("Only list what would be removed, as without --apply.", "--dry-run")] = False,
    unsaved: Annotated[bool, option("Also remove workspaces of runs that were never saved.", "--unsaved")] = False,
    data: Annotated[bool, option("Also remove DVC data that no tag, branch or saved run uses.", "--data")] = False,
) -> None:
    """List workspaces, checkpoints and caches as JSON; with --apply remove those beyond the limits of `keeping`."""
    if data and not apply:
        raise UserError("--data needs --apply: what DVC would remove cannot be listed before")
    if dry_run and apply:
        raise UserError("--dry-run and --apply: give one of them; --dry-run only lists")
    params = read_params(file, overrides)
    from pipelines.operations.retention import remove, remove_unreferenced_data, survey

    root = Path.cwd()
    items = survey(root, params.keeping, unsaved=unsaved)
    going = [item for item in items if item.kept is None]
    for item in items:
        decision = f"goes ({item.size} bytes)" if item.kept is None else f"stays: {item.kept}"
        say(f"{item.kind} {item.path}: {decision}")
    if apply:
        count, size = remove(going)
        if data:
            remove_unreferenced_data(root)
        say_done(f"removed {count} items, {size} bytes")
    else:
        say(f"{len(going)} items, {sum(item.size for item in going)} bytes, would go; --apply removes them")
    emit({"applied": apply, "items": [item.plain() for item in items]})

"""`dynamicid clean`: remove old run workspaces, checkpoints and caches, and unreferenced data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, say_done
from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Keeping
from pipelines.core.words import counted


def clean(
    *,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    apply: Annotated[bool, option("Remove; without it, only list what would be removed.", "--apply")] = False,
    dry_run: Annotated[bool, option("Only list what would be removed, as without --apply.", "--dry-run")] = False,
    unsaved: Annotated[bool, option("Also remove workspaces of runs that were never saved.", "--unsaved")] = False,
    runs: Annotated[bool, option("Also MLflow's runs beyond the limits, with their files.", "--runs")] = False,
    ledger: Annotated[
        str | None, option("MLflow's database, for --runs; default: as for `backup`.", metavar="ADDRESS")
    ] = None,
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
        say_done(f"removed {counted(count, 'item')}, {size} bytes")
    else:
        say(f"{counted(len(going), 'item')}, {sum(item.size for item in going)} bytes, would go; --apply removes them")
    found = {"runs": _runs(root, params.keeping, ledger, apply)} if runs else {}
    emit({"applied": apply, "items": [item.plain() for item in items], **found})


def _runs(root: Path, keeping: Keeping, ledger: str | None, apply: bool) -> dict[str, object]:
    """Remove the runs of MLflow that `keeping` does not keep, where `apply`; return them for JSON."""
    from pipelines.operations.backup.locations import Addresses, find_locations
    from pipelines.registry.old_runs import find_old_runs

    address = find_locations(root, Addresses(ledger)).ledger
    if address is None:
        how = "--ledger names it; in containers, `docker compose … run --rm mlflow-clean` reaches it"
        say(f"MLflow's database is not here, so no run was removed; {how}")
        return {}
    old = find_old_runs(root, address, keeping)
    size = old.remove() if apply else 0
    deleted = counted(len(old.deleted), "deleted run")
    say(f"MLflow: {counted(len(old.old), 'old run')}, {deleted} {'removed' if apply else 'would go'}, {size} bytes")
    return {"old": old.old, "deleted": old.deleted, "bytes": size}

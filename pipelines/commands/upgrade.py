"""`dynamicid upgrade`: bring the files of an older release up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import option
from pipelines.commands.output import emit, say, say_done


def upgrade(
    *,
    apply: Annotated[bool, option("Upgrade; without it, only list what would change.", "--apply")] = False,
    backup: Annotated[
        Path | None,
        option("New folder for the backup; default: a folder in .dynamicid/before_upgrade.", metavar="DIR"),
    ] = None,
) -> None:
    """List the files of this checkout by format and version; with --apply back up and rewrite older ones.

    Files that are read as they are, such as datasets and models, never change. Stop servers and runs before --apply.
    """
    from pipelines.operations.upgrade import upgrade as operation
    from pipelines.operations.upgrade.survey import survey

    root = Path.cwd()
    items, saved = operation.upgrade(root, backup) if apply else (survey(root), None)
    changing = [item for item in items if item.change is not None]
    if apply:
        if saved is not None:
            say_done(f"upgraded: {', '.join(item.place for item in changing)}; as they were before: {saved}")
        else:
            say_done("nothing to do: every file is of the present format, or read as it is")
    else:
        for item in items:
            say(item.line())
        what = f"{len(changing)} would change; --apply makes a backup and changes them"
        say(what if changing else "nothing to do")
    emit({"applied": saved is not None, "backup": saved, "items": [item.plain() for item in items]})

"""`dynamicid rollback`: the champion before this one gets its alias back."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import option
from pipelines.commands.output import emit, say_done


def rollback(
    by: Annotated[str | None, option("Who decides; default: the user's login name.", metavar="NAME")] = None,
    to: Annotated[str | None, option("Back to this version; default: the champion before.", metavar="URI")] = None,
    name: Annotated[str, option("The registered model.")] = "dynamicid",
    reason: Annotated[str | None, option("Why; written into the tags of both versions.")] = None,
) -> None:
    """Set the alias `champion` back to a version that had it before, and say to which."""
    from pipelines.registry import promotion

    move = promotion.rollback(Path.cwd(), name, by=by or getpass.getuser(), to=to, reason=reason)
    emit(move)
    said = f"{name}: the champion is v{move.champion} again, it was v{move.before}"
    say_done(said)

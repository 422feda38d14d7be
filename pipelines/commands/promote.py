"""`dynamicid promote` and `dynamicid rollback`: a person's decision on a challenger, and taking one back."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit, say_done
from pipelines.core.errors import UserError


def promote(
    uri: Annotated[str, argument("models:/dynamicid/3 or models:/dynamicid@challenger.", metavar="URI")],
    by: Annotated[str, option("Who decides; written into the version's tags.", metavar="NAME")],
    refuse: Annotated[bool, option("Decide against it; the champion stays.", "--refuse")] = False,
    reason: Annotated[str | None, option("Why; written into the version's tags.")] = None,
    override_gates: Annotated[bool, option("Promote it though gates failed.", "--override-gates")] = False,
) -> None:
    """Make a version the champion, or refuse it; exit 1 where gates failed or the champion changed meanwhile."""
    from pipelines.registry import promotion

    if refuse and override_gates:
        raise UserError("--refuse and --override-gates exclude each other: the one keeps the champion, the other not")
    if refuse:
        move = promotion.refuse(Path.cwd(), uri, by=by, reason=reason)
    else:
        move = promotion.promote(Path.cwd(), uri, by=by, reason=reason, override_gates=override_gates)
    emit(move)
    said = f"{move.model_name} v{move.version}: {move.decision} by {by}; champion is {promotion.shown(move.champion)}"
    say_done(said)


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
    say_done(f"{name}: the champion is v{move.champion} again, it was v{move.before}")

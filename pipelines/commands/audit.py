"""`dynamicid audit`: who promoted, rolled back, forgot, restored, and made accounts, when and from where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pipelines.commands.options import option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.words import counted, did_you_mean


def audit(
    *,
    deed: Annotated[str | None, option("Only this deed: register, promote, forget …", metavar="NAME")] = None,
    identity: Annotated[
        str | None, option("Only about this person, whom the log holds as a hash.", metavar="NAME")
    ] = None,
    last: Annotated[int, option("Number of deeds, the newest.", min=1)] = 50,
) -> None:
    """Print the audit log; exit 1 if a line of it is damaged or was changed or deleted."""
    from pipelines.operations.audit import BEGUN, DEEDS, FILE, read_audit

    log = read_audit(Path.cwd())
    known = dict.fromkeys((*DEEDS, *(line["deed"] for line in log.lines)))
    if deed is not None and deed not in known:
        near = did_you_mean(deed, known) or f"; there are {', '.join(filter(None, known))}"
        raise UserError(f"--deed {deed}: no such deed{near}")
    ended = {line["id"] for line in log.lines if line["state"] != BEGUN}
    lines = log.lines if identity is None else log.about(identity)
    lines = [line for line in lines if deed in (None, line["deed"])]
    lines = [line for line in lines if line["state"] != BEGUN or line["id"] not in ended][-last:]
    emit_if_asked({"lines": lines, "problems": log.problems, "head": log.head})
    for line in lines:
        say(_describe(line))
    if log.problems:
        raise StageFailed(f"{FILE}: {'; '.join(log.problems[:5])}: the log is not as it was written")
    say(f"{counted(len(log.lines), 'line')}, none changed; the sha256 of the last is {log.head}")


def _describe(line: dict[str, Any]) -> str:
    who, where = line["who"], line["where"]
    state = "has no end in the log" if line["state"] == "begun" else line["state"]
    by = f"{who['by']} (login {who.get('login')})" if "by" in who else who.get("login")
    place = ", ".join(f"{name} {value}" for name, value in where.items())
    known = (line["what"] | line.get("result", {})).items()
    details = ", ".join(f"{name} {json.dumps(value)}" for name, value in known if value not in (None, False))
    return f"{line.get('at')}  {line['deed']} {state}: by {by}, {place}: {details}"

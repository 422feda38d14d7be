"""The two errors that end a command, their exit codes, and how their text reaches whoever started the command."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pipelines.core.screen import encodable

# Names a file for the reason why a command ends; between it and its caller stands a program (DVC) that passes on
# nothing but its own exit code.
REASON_VARIABLE = "DYNAMICID_REASON_FILE"


class UserError(Exception):
    """Wrong use or configuration (exit 2); the message says in one line what, where, what was expected, what to do."""

    exit_code = 2


class StageFailed(Exception):
    """Data was refused, a gate failed or the work failed (exit 1); the message gives the reason."""

    exit_code = 1


def leave_reason(text: str, code: int) -> None:
    """Write why this command ends, and its exit code, to the file that the caller named, if it named one."""
    if file := os.environ.get(REASON_VARIABLE):
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps([code, encodable(text)]), encoding="utf-8")


def read_reason(file: Path) -> tuple[int | None, str | None]:
    """Return exit code and text that a command left in `file`, or (None, None)."""
    try:
        code, text = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None, None
    return int(code), str(text)

"""State the version of a format in a folder of state, and check it before the folder is used."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.table import KEY, Format, check_format

STATE_MARKER = ".format.json"
EXPORT_MARKER = ".dynamicid.json"


def stated_version(kind: Format, marker: Path, damaged: str | None = None) -> int:
    """Return the version in the JSON file `marker` (missing: 1); raise UserError for a newer or a `damaged` one."""
    try:
        content = json.loads(marker.read_bytes())
    except FileNotFoundError:
        return 1
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(damaged or f"{marker}: damaged, expected a JSON object with the key {KEY}; remove the file")
    return check_format(kind, marker, content.get(KEY))


def enter_state(kind: Format, folder: Path) -> int:
    """Return the version of the state in `folder`, and state the present one, which is written from now on.

    Raises UserError, and changes nothing, where a newer program wrote the state.
    """
    marker = folder / STATE_MARKER
    version = stated_version(kind, marker)
    if version < kind.version:
        write_atomically(marker, json.dumps({KEY: kind.version}) + "\n")
    return version

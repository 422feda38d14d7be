"""The operator of every task that runs a command of the project."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from task_links import LINKS, ShownWhileRunning

# Exit code of wrong use or configuration, which no retry mends.
_WRONG_USE = 2


class CommandOperator(BashOperator):
    """A task of one command; where it fails, the task fails with the reason that the command gives, at once on exit 2.

    `pages` are the pages that the command writes, from its folder: `docs` and `report`.
    """

    operator_extra_links = LINKS

    def __init__(self, *, pages: dict[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.pages, self.run_address, self.workspace = pages, "", ""

    def execute(self, context: Any) -> Any:
        """Run the command; the reason is otherwise in the log alone, and no notification has it."""
        with tempfile.TemporaryDirectory() as folder:
            note, address, place = (Path(folder) / name for name in ("reason", "run", "workspace"))
            # pipelines/core/errors.py, pipelines/registry/runs.py, pipelines/commands/workspace.py
            notes = {"REASON": str(note), "RUN": str(address), "WORKSPACE": str(place)}
            self.env = {**(self.env or {}), **{f"DYNAMICID_{name}_FILE": file for name, file in notes.items()}}
            try:
                with ShownWhileRunning(self, context.get("ti"), address):
                    return super().execute(context)
            except AirflowSkipException:
                raise
            except AirflowException:
                if not note.is_file():
                    raise
                code, reason = json.loads(note.read_text(encoding="utf-8"))
                error = AirflowFailException if code == _WRONG_USE else AirflowException
                raise error(f"{reason} (exit {code})") from None
            finally:
                self.workspace = place.read_text(encoding="utf-8") if place.is_file() else ""

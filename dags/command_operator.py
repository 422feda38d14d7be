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
        self.pages, self.run_address = pages, ""

    def execute(self, context: Any) -> Any:
        """Run the command; the reason is otherwise in the log alone, and no notification has it."""
        if self.cwd and not Path(self.cwd).is_dir():
            raise AirflowFailException(  # a retry would not find it either
                f"{self.cwd}: the workspace of this run is gone, as after `dynamicid clean`; clear the task "
                "`workspace` with Downstream"
            )
        with tempfile.TemporaryDirectory() as folder:
            note, address = Path(folder) / "reason", Path(folder) / "run"
            # pipelines/core/errors.py, pipelines/registry/runs.py
            notes = {"DYNAMICID_REASON_FILE": str(note), "DYNAMICID_RUN_FILE": str(address)}
            self.env = {**(self.env or {}), **notes}
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

"""Links on the page of a task: its run in MLflow, its Data Docs and its report.

Airflow asks for them in the worker when a task ends, also when it fails, and keeps the answers as XComs.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

# Where the plugin run_pages serves the workspaces.
_PAGES = "dynamicid/pages"


class RunLink(BaseOperatorLink):
    """The run in MLflow that the command named; none where MLflow has no server."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty text, which Airflow shows as no link."""
        return str(getattr(operator, "run_address", ""))


class DocsLink(BaseOperatorLink):
    """The Data Docs that the command wrote into the workspace."""

    name, page = "Data Docs", "docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty text where there is no page."""
        path = operator.pages.get(self.page)
        workspace = Path(getattr(operator, "workspace", ""))
        if path is None or not (workspace / path).is_file():
            return ""
        base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
        return f"{base}/{_PAGES}/{quote(ti_key.dag_id)}/{quote(workspace.name)}/{path}"


class ReportLink(DocsLink):
    """The report that the command wrote into the workspace: on the evaluation, or on drift."""

    name, page = "Report", "report"


LINKS = (RunLink(), DocsLink(), ReportLink())


class ShownWhileRunning:
    """A block in which the address that the command writes to `note` becomes the link before the command ends."""

    def __init__(self, operator: Any, instance: Any, note: Path) -> None:
        self._operator, self._instance, self._note = operator, instance, note
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        """Begin to wait for the note."""
        self._operator.run_address = ""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Read what the command wrote last, for `RunLink`."""
        self._ended.set()
        self._thread.join()
        self._operator.run_address = self._read()

    def _follow(self) -> None:
        while not self._ended.wait(2):
            if (address := self._read()) and self._instance is not None:
                self._instance.xcom_push(key=RunLink().xcom_key, value=address)
                return

    def _read(self) -> str:
        return self._note.read_text(encoding="utf-8").strip() if self._note.is_file() else ""

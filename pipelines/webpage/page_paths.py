"""The paths of the page's files as its users see them: below /uploads/, without the folders above."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.core.errors import UserError

SHOWN = "/uploads"


class PagePaths:
    """Translate between files in `folder` (absolute, without links) and what requests and answers call them."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        # In texts, in JSON and in addresses.
        forms = {self._folder, json.dumps(self._folder)[1:-1], quote(self._folder)}
        self._forms = [form.encode() for form in forms]

    def hide(self, data: bytes) -> bytes:
        """Return a part of an answer with the folder's path replaced."""
        for form in self._forms:
            data = data.replace(form, SHOWN.encode())
        return data

    def real(self, shown: str) -> str | None:
        """Return the path of the file that a request names, None where it names no file of the folder."""
        if not shown.startswith(f"{SHOWN}/"):
            return None
        try:
            real = Path(os.path.realpath(self._folder + shown.removeprefix(SHOWN)))
            return str(real) if real.is_relative_to(self._folder) and real.is_file() else None
        except (OSError, ValueError):
            # NUL, half a character, a name that is too long.
            return None

    def check(self, payload: Any) -> Any:
        """Return a request's JSON with real paths; raise UserError where a file is not one of the folder's uploads.

        Whatever is called `path` must be such a file. Addresses (`url`), which Gradio might fetch, are left out: the
        page itself sends them beside the paths.
        """
        if isinstance(payload, list):
            return [self.check(value) for value in payload]
        if not isinstance(payload, dict):
            return payload
        checked = {name: self.check(value) for name, value in payload.items() if name != "url"}
        if isinstance(path := payload.get("path"), str):
            checked["path"] = self.real(path)
            is_inline = str(payload.get("url")).strip().lower().startswith("data:")
            if checked["path"] is None or is_inline:
                raise UserError(
                    "no such upload: upload the picture, and send what the upload returned; addresses are not fetched, "
                    "and uploads are removed after an hour"
                )
        return checked

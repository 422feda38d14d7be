"""The folder of uploads and pictures, the only one that the page writes to; removed when the page ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.locks import hold

HOME = Path(".dynamicid") / "app"
# Below the page's folder: what Gradio serves, and deletes after an hour.
UPLOADS = "uploads"
_GRADIO = "GRADIO_TEMP_DIR"


@contextmanager
def page_folder(root: Path, port: int) -> Iterator[Path]:
    """Yield a folder `.dynamicid/app/<port>` of `root` for all temporary files of this process; `UPLOADS` is in it.

    It is emptied first (a page that was killed leaves photos of people behind) and removed afterwards. Enter it before
    Gradio is imported, which reads the variable once. Raises UserError where another page uses the folder.
    """
    folder = (root / HOME / str(port)).resolve()
    taken = UserError(f"{folder}: another page is using it; choose another --port")
    with hold(folder.with_suffix(".lock"), taken):
        before = tempfile.tempdir, os.environ.get(_GRADIO)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            tempfile.tempdir, os.environ[_GRADIO] = str(folder), str(folder / UPLOADS)
            yield folder
        finally:
            tempfile.tempdir = before[0]
            os.environ.pop(_GRADIO, None)
            if before[1] is not None:
                os.environ[_GRADIO] = before[1]
            shutil.rmtree(folder, ignore_errors=True)

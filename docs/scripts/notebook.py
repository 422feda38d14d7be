"""Write the page of an executed notebook: `python docs/scripts/notebook.py EXECUTED.ipynb`.

The page is docs/log/notebook.md, its pictures are in docs/pictures/notebook. Long outputs are shortened.
To run all cells: `jupyter execute notebooks/kaggle.ipynb --output=EXECUTED.ipynb --timeout=-1`.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import sys
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE, PICTURES = Path("docs/log/notebook.md"), Path("docs/pictures/notebook")
# Outputs of more lines than this are shortened to so many at their start and their end; characters of a line.
_WHOLE, _SHOWN, _WIDTH = 40, 12, 160
# Where this machine keeps its programs.
_HERE = re.compile(r"(?:/home|/root|/Users|/work|/opt)/[^\s'\")]*")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def page_of(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """Return the Markdown of an executed notebook, and its pictures (JPEG) by file name.

    Raises ValueError where an output names a folder of this machine, or a cell was not executed.
    """
    cells = notebook.cells
    seconds = {cell.id: _seconds(cell) for cell in cells if cell.cell_type == "code"}
    parts, pictures = [], {}
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        numbers = count(1)
        printed = ""
        for output in cell.outputs:
            if output.output_type == "stream":
                printed += output.text
            elif picture := output.get("data", {}).get("image/png") or output.get("data", {}).get("image/jpeg"):
                width = next((one["width"] for one in output.metadata.values() if "width" in one), 400)
                name = f"{cell.id}-{next(numbers)}.jpg"
                pictures[name] = _small(base64.b64decode(picture), width)
                parts += _block(printed)
                printed = ""
                parts.append(f'<img src="../pictures/notebook/{name}" alt="output of the cell above" width="{width}">')
        parts += _block(printed)
        if seconds[cell.id] >= 10:
            parts.append(f"*{seconds[cell.id]:,.0f} s*")
    title, _, first = parts[0].partition("\n")
    run = f"`notebooks/kaggle.ipynb` as it was executed, in {sum(seconds.values()) / 60:.0f} minutes."
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells):
        run += " The cell after the settings replaces some of them, so figures differ from those of a whole run."
    return "\n\n".join([title, run, first.strip(), *parts[1:]]) + "\n", pictures


def _small(picture: bytes, width: int) -> bytes:
    """Return a picture as JPEG, at most `width` pixels wide."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((width, width))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


def _block(printed: str) -> list[str]:
    """Return an output as a block of text, as a terminal shows it in the end, without the middle of a long one."""
    # A progress bar writes over its own line.
    lines = [_COLOUR.sub("", line.rstrip("\r").rpartition("\r")[2].rstrip()) for line in printed.split("\n")]
    lines = [line.replace(f"{ROOT}/", "") for line in lines]
    lines = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in lines if line]
    if here := _HERE.search("\n".join(lines)):
        raise ValueError(f"{here[0]}: a folder of this machine in an output")
    if len(lines) > _WHOLE:
        lines = [*lines[:_SHOWN], f"… {len(lines) - 2 * _SHOWN} lines …", *lines[-_SHOWN:]]
    return ["```text\n" + "\n".join(lines) + "\n```"] if lines else []


def _seconds(cell: Any) -> float:
    try:
        times = cell.metadata["execution"]
        start, end = (datetime.fromisoformat(times[name]) for name in ("iopub.execute_input", "shell.execute_reply"))
    except KeyError:
        raise ValueError(f"cell {cell.id}: not executed") from None
    return (end - start).total_seconds()


def main() -> int:
    """Write page and pictures of the executed notebook that the command line names."""
    text, pictures = page_of(nbformat.read(sys.argv[1], as_version=4))
    shutil.rmtree(ROOT / PICTURES, ignore_errors=True)
    (ROOT / PICTURES).mkdir(parents=True)
    for name, picture in pictures.items():
        (ROOT / PICTURES / name).write_bytes(picture)
    (ROOT / PAGE).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

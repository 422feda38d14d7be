"""The text of Data Docs without what varies from run to run."""

from __future__ import annotations

import re
from pathlib import Path

VARIES = (
    r"\d{4}-?\d\d-?\d\dT[\d:.+Z]*",
    r"\d\d:\d\d:\d\d(\.\d+)?",
    r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}",
    r"<tr>(?:(?!</tr>).)*-collapse-item-(?:(?!</tr>).)*</tr>",  # on the run and its data, hidden
)


def text_of(docs: Path) -> str:
    """Return the pages of all validations in a folder of Data Docs, without times, names of runs and blanks."""
    text = "".join(page.read_text() for page in docs.rglob("validations/**/*.html"))
    for varies in VARIES:
        text = re.sub(varies, "", text, flags=re.DOTALL)
    return re.sub(r">\s+<", "><", text)

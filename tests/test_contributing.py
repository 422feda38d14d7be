"""Names that a step of CONTRIBUTING.md mentions are in the files that it mentions."""

from __future__ import annotations

import re
from pathlib import Path

NAME = re.compile(r"`([A-Z_]\w+|[a-z]+_\w+)`")
FILE = re.compile(r"`((?:pipelines|model|tests)/[\w/]+\.py)`")


def test_names_stand_in_the_files_beside_them(project: Path) -> None:
    steps = re.split(r"\n(?=\d\. |\n)", (project / "CONTRIBUTING.md").read_text("utf-8"))
    checked = 0
    for step in steps:
        beside = "".join((project / file).read_text("utf-8") for file in FILE.findall(step))
        for name in NAME.findall(step) if beside else ():
            assert name in beside, step
            checked += 1
    assert checked >= 15

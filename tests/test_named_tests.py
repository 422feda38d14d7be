"""Pages say what a test shows: every test that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGES = sorted(
    str(page.relative_to(Path(__file__).parents[1]))
    for page in (Path(__file__).parents[1] / "docs").rglob("*.md")
    if _NAMED.search(page.read_text(encoding="utf-8"))
)


def test_pages_that_name_tests_are_found() -> None:
    assert {"docs/explanation/guarantees.md", "docs/reference/combinations.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_exists(project: Path, page: str) -> None:
    missing = [
        f"{file}::{name}"
        for file, name in _NAMED.findall((project / page).read_text(encoding="utf-8"))
        if not (project / file).is_file() or f"def {name}(" not in (project / file).read_text(encoding="utf-8")
    ]
    assert missing == []

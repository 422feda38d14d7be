"""The page under several clients at once and under malformed requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.page_load import alive, load, load_under_attack, send_malformed

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page


@pytest.mark.nightly
def test_fifty_requests_of_five_clients(page: Page, drawn_people: list[Path]) -> None:
    found = load(page.url, drawn_people, count=50, clients=5, seeds=10)
    assert found["errors"] == 0, found["first_error"]
    assert found["most_answers_of_one_seed"] == 1
    assert found["pictures"] == 10


def test_nonsense_is_refused_with_a_reason(page: Page, drawn_people: list[Path]) -> None:
    before = {file for file in page.folder.parents[2].rglob("*") if page.folder not in file.parents}
    found = send_malformed(page.url, drawn_people[0].read_bytes())
    assert found["not_refused"] == []
    assert found["malformed"] > 60
    assert alive(page.url)
    assert load(page.url, drawn_people, count=2, clients=2, seeds=1)["errors"] == 0
    after = {file for file in page.folder.parents[2].rglob("*") if page.folder not in file.parents}
    assert after == before, "only the page's folder is written to"


@pytest.mark.nightly
def test_an_attacker_makes_no_other_request_fail(page_home: Path, drawn_people: list[Path]) -> None:
    """How much slower the others become is measured, not asserted: `benchmarks/page_load.py --attack`."""
    adapter = page_home / "models" / "adapter"
    found = load_under_attack(str(adapter), drawn_people, count=20, clients=5, seeds=5, home=page_home)
    assert found["errors"] == 0, found["first_error"]
    drawn = {kind for kind in found["attacks"] if kind.endswith(": 200")}
    assert drawn <= {"drawings: 200"}, "nothing else of the attacker was accepted"

"""The whole chain in folders with odd names, under odd environments; every run of every row has the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.odd_places import CASES, STEPS, Chain, prepare, run_case


@pytest.fixture(scope="session")
def prepared(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    return once("odd_places", prepare)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["URL: # and space, proxies"])
def test_data_and_backup_in_an_odd_place(prepared: Path, tmp_path: Path, name: str) -> None:
    """Photos come in through both doors, a stage is recorded, and everything lost comes back."""
    chain = Chain(CASES[name], prepared, tmp_path)
    chain.ingest()
    chain.inbox_batch()
    chain.command("repro", "validate")
    chain.backup()
    chain.restore()
    chain.compare()


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_every_step_in_every_odd_place(prepared: Path, tmp_path: Path, name: str) -> None:
    seconds = run_case(CASES[name], prepared, tmp_path)
    print(f"| {name} | {' | '.join(f'{each:.0f} s' for each in seconds.values())} |")
    assert list(seconds) == [step for step in STEPS if step not in CASES[name].without]

"""Exact vectors of published modules, and the errors of ours against them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.network.golden import TOLERANCE, Golden


@pytest.fixture(scope="module")
def errors(request: pytest.FixtureRequest) -> Iterator[dict[str, float]]:
    """The largest error per file, printed after all cases even if output is captured."""
    largest: dict[str, float] = {}
    yield largest
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        reporter.write_line("")
        for name, error in largest.items():
            reporter.write_line(f"{name}: largest error {error:.1e} (allowed {TOLERANCE:.0e})")


@pytest.fixture
def golden(shared: Path, errors: dict[str, float], request: pytest.FixtureRequest) -> Golden:
    folder, name = request.param
    given = request.config.getoption("--golden") if folder == "golden" else None
    return Golden(Path(given or shared / folder) / f"{name}.safetensors", errors)

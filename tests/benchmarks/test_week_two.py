"""Two weeks in workspaces of their own: the second costs what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.week_two import DagRun, Run, measure
from tests.processes import SMALL_CHAIN

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", [Run, DagRun], ids=["commands", "airflow"])
def test_week_two_looks_at_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Run] | type[DagRun]
) -> None:
    for name in ("DYNAMICID_HOME", "DYNAMICID_STATE", "DYNAMICID_RUNS"):
        monkeypatch.delenv(name, raising=False)
    found = measure(tmp_path, 200, 10, ["preprocess.buckets=64", *(SMALL_CHAIN if kind is DagRun else ())], kind)
    assert [found[name]["looked_at"] for name in ("week one", "week two", "nothing new")] == [200, 10, 0]
    assert [found[name]["rows"] for name in found] == [200, 210, 210, 220, 230]
    assert found["week one"]["buckets_written"] == 64
    assert 0 < found["week two"]["buckets_written"] <= 10
    assert found["nothing new"]["buckets_written"] == 0
    # Week four has the new photos of week three, which nobody may have analysed before.
    assert found["week three"]["looked_at"] == 10
    assert 10 <= found["week four"]["looked_at"] <= 20

"""The ingesting DAG where nothing is dropped for as long as the sensor waits."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.nightly
def test_a_wait_without_photos_is_skipped_and_fails_nothing(project: Path, tmp_path: Path, run_dag) -> None:
    found = run_dag(project, "dynamicid_ingest", DYNAMICID_INBOX=str(tmp_path / "inbox"))
    assert found["run"] == "success"
    assert set(found["tasks"].values()) == {"skipped"}

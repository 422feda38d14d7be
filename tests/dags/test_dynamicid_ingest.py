"""The DAG dynamicid_ingest when no photo arrives while the sensor waits."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.nightly
def test_without_photos_every_task_is_skipped(project: Path, tmp_path: Path, run_dag) -> None:
    (tmp_path / "inbox").mkdir()
    found = run_dag(project, "dynamicid_ingest", DYNAMICID_INBOX=str(tmp_path / "inbox"))
    assert found["run"] == "success"
    assert set(found["tasks"].values()) == {"skipped"}

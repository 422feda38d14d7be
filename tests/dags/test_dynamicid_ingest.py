"""The sensor of the DAG dynamicid_ingest: batches of any name, and no photo while it waits."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_without_photos_every_task_is_skipped(project: Path, tmp_path: Path, run_dag) -> None:
    (tmp_path / "inbox").mkdir()
    found = run_dag(project, "dynamicid_ingest", DYNAMICID_INBOX=str(tmp_path / "inbox"))
    assert found["run"] == "success"
    assert set(found["tasks"].values()) == {"skipped"}


def test_a_batch_whose_name_is_not_utf_8_reaches_the_scheduler(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(project / "dags")
    from inbox_sensor import InboxTrigger

    for batch in (b"monday", b"tues\xffday"):
        folder = os.path.join(os.fsencode(tmp_path), batch)  # noqa: PTH118 (a name that Path cannot print)
        os.mkdir(folder)  # noqa: PTH102
        for name in (b"\xfe.jpg", b"_READY"):
            Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"x")

    async def first() -> object:
        async for event in InboxTrigger(sys.executable, str(project), str(tmp_path), 0.1, 60).run():
            return event

    event = asyncio.run(first())
    assert event.payload == {"ready": ["monday", "tues\\xffday"]}
    event.model_dump_json()  # as it is sent

"""Wait for photos without occupying a worker: the triggerer asks the command line which batches are ready."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent


class InboxTrigger(BaseTrigger):
    """A trigger that fires when a batch is ready, when the inbox cannot be read, or after `patience` seconds."""

    def __init__(self, python: str, project: str, inbox: str, poll: float, patience: float) -> None:
        super().__init__()
        self.settings = {"python": python, "project": project, "inbox": inbox, "poll": poll, "patience": patience}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class and the arguments that recreate the trigger."""
        return "inbox_sensor.InboxTrigger", self.settings

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check the inbox every `poll` seconds and yield one event."""
        end = time.monotonic() + self.settings["patience"]
        while True:
            code, out, error = await self._ask()
            if code:
                yield TriggerEvent({"error": error.strip()[-2000:] or f"exit {code}"})
                return
            if ready := json.loads(out)["ready"]:
                yield TriggerEvent({"ready": ready})
                return
            if time.monotonic() > end:
                yield TriggerEvent({"ready": []})
                return
            await asyncio.sleep(self.settings["poll"])

    async def _ask(self) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            self.settings["python"],
            *("-m", "pipelines.cli", "inbox", "ready", "--inbox", self.settings["inbox"]),
            cwd=self.settings["project"],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, error = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        return process.returncode or 0, out.decode(), error.decode(errors="replace")


class InboxSensor(BaseSensorOperator):
    """A sensor that succeeds with the names of the ready batches, and is skipped after `patience` without any."""

    def __init__(self, *, python: str, project: str, inbox: str, patience: timedelta, **options: Any) -> None:
        super().__init__(**options)
        self.place = {"python": python, "project": project, "inbox": inbox}
        self.patience = patience

    def execute(self, context: Any) -> None:
        """Defer the waiting to the triggerer."""
        trigger = InboxTrigger(**self.place, poll=self.poke_interval, patience=self.patience.total_seconds())
        self.defer(trigger=trigger, method_name="complete")

    def complete(self, context: Any, event: dict[str, Any]) -> list[str]:
        """Return the batches that the trigger found."""
        if "error" in event:
            raise RuntimeError(f"the inbox {self.place['inbox']} cannot be read: {event['error']}")
        if not event["ready"]:
            raise AirflowSkipException(f"no photos in {self.place['inbox']} for {self.patience}")
        return event["ready"]

"""Gradio's sessions by caller: the newest few of each, and nobody uses another caller's."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

# Sessions that are kept of a caller: one for an open page, one for each call of the API whose answer was not fetched.
MAX_SESSIONS = 64
_MAX_NAME = 64


class Sessions:
    """Gradio's sessions of `blocks`: messages that wait for their reader, and what a page remembers.

    Gradio itself keeps 2,000 and 10,000 of them, whoever made them, under names of any length, and drops the oldest.
    """

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self._caller_of: dict[str, str] = {}

    def check(self, caller: str, session: Any) -> None:
        """Raise HTTPException where `session` is no name (400), or another caller's (404)."""
        if not isinstance(session, str) or not 0 < len(session) <= _MAX_NAME:
            raise HTTPException(400, f"session_hash: expected a text of 1 to {_MAX_NAME} characters")
        if self._caller_of.get(session, caller) != caller:
            raise HTTPException(404, "no such session")

    def use(self, caller: str, session: Any) -> None:
        """Make `session` the newest of `caller`, and forget the oldest beyond `MAX_SESSIONS`; raises as `check`."""
        self.check(caller, session)
        # The newest is the last.
        self._caller_of.pop(session, None)
        self._caller_of[session] = caller
        own = [one for one, its_caller in self._caller_of.items() if its_caller == caller]
        if len(own) > MAX_SESSIONS:
            busy = self._busy()
            for one in own[:-MAX_SESSIONS]:
                if one not in busy:
                    self._forget(one)

    def _busy(self) -> set[str]:
        queue = self._blocks._queue
        waiting = [event for part in queue.event_queue_per_concurrency_id.values() for event in part.queue]
        running = [event for job in queue.active_jobs if job for event in job]
        return {event.session_hash for event in (*waiting, *running)}

    def _forget(self, session: str) -> None:
        del self._caller_of[session]
        queue, states = self._blocks._queue, getattr(self._blocks, "state_holder", None)
        queue.pending_messages_per_session.pop(session, None)
        for event in queue.pending_event_ids_session.pop(session, ()):
            queue.event_ids_to_events.pop(event, None)
        if states is not None:
            states.session_data.pop(session, None)
            states.time_last_used.pop(session, None)

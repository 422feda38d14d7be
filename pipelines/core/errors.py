"""The two errors that end a command, and their exit codes."""

from __future__ import annotations


class UserError(Exception):
    """Wrong use or configuration (exit 2); the message says in one line what, where, what was expected, what to do."""

    exit_code = 2


class StageFailed(Exception):
    """Data was refused, a gate failed or the work failed (exit 1); the message gives the reason."""

    exit_code = 1

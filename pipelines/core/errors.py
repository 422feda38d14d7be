"""The two ways in which a command ends badly, and their exit codes."""

from __future__ import annotations


class UserError(Exception):
    """Wrong use or configuration (exit 2). The message is one line: what, where, what was expected, what to do."""

    exit_code = 2


class StageFailed(Exception):
    """The work itself failed: data refused, a gate not passed (exit 1). The message gives the reason."""

    exit_code = 1

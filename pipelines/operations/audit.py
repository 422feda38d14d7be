"""The audit log: who did what, when and from where, of deeds about champions, people's data, backups and accounts.

`.dynamicid/audit.jsonl` of the checkout only grows: a line is appended before a deed and one after it, and each holds
the sha256 of the line before, so that a change or deletion shows. A deed whose line cannot be written is not done.
People who were forgotten stand in it as salted hashes, as in `data/forgotten.jsonl`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.formats.table import AUDIT, KEY, check_format
from pipelines.registry.settings import tracking_root
from pipelines.versions.forgotten import is_person

FILE = Path(".dynamicid") / "audit.jsonl"
BEGUN, DONE, FAILED = "begun", "done", "failed"
DEEDS = ("register", "promote", "refuse", "rollback", "forget", "restore", "accounts")
# The end of the log that is searched for its last line: longer than any line.
_TAIL = 2**20
_LONGEST = _TAIL // 2


@dataclass(frozen=True)
class Audit:
    """The lines of a log, the oldest first, what is wrong with it, and the sha256 (hex) of its last line."""

    lines: list[dict[str, Any]]
    problems: list[str]
    head: str

    def about(self, name: str) -> list[dict[str, Any]]:
        """Return the lines about the person `name`, whom they hold as a salted hash."""
        return [line for line in self.lines if any(is_person(pair, name) for pair in line["what"].get("people", ()))]


@contextmanager
def audited(root: Path, deed: str, *, by: str | None = None, **what: Any) -> Iterator[dict[str, Any]]:
    """Append that `deed` begins, run the block, and append how it ended, with what the block puts into the dictionary.

    `by` is the person who decided, if that is not whoever is logged in. `what` and the result name people as salted
    hashes only; of an error its class is written, as its message may name them. Raises StageFailed, before the block,
    where the log cannot be written.
    """
    file = tracking_root(root) / FILE
    common = {"id": secrets.token_hex(4), "deed": deed, "who": _who(by), "where": _where(), "what": what}
    _append(file, {**common, "state": BEGUN}, "nothing was done")
    result: dict[str, Any] = {}
    try:
        yield result
    except BaseException as error:
        _append(file, {**common, "state": FAILED, "error": type(error).__name__, "result": result}, f"{deed} failed")
        raise
    _append(file, {**common, "state": DONE, "result": result}, f"{deed} is done, which the log does not state")


def read_audit(root: Path) -> Audit:
    """Return the log of a checkout, and each place where a line is damaged or was changed, moved or deleted."""
    file = tracking_root(root) / FILE
    lines: list[dict[str, Any]] = []
    problems: list[str] = []
    before = b""
    for number, raw in enumerate(file.read_bytes().splitlines() if file.is_file() else (), 1):
        try:
            line = json.loads(raw)
            check_format(AUDIT, f"{file}, line {number}", line.get(KEY))
            chained = line["previous"] == hashlib.sha256(before).hexdigest()
            lines.append({"id": "", "deed": "", "state": "", "what": {}, "who": {}, "where": {}, **line})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            chained = True
            problems.append(f"line {number} is cut or damaged")
        if not chained:
            problems.append(f"before line {number}, something was changed or deleted")
        before = raw
    return Audit(lines, problems, hashlib.sha256(before).hexdigest())


def _append(file: Path, record: dict[str, Any], otherwise: str) -> None:
    """Append one line, by one write, while no other process does; `otherwise`: what is true where that fails."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
            whole = tail.removesuffix(b"\n")
            previous = hashlib.sha256(whole.rpartition(b"\n")[2]).hexdigest()
            line = json.dumps({KEY: AUDIT.version, "at": at, **record, "previous": previous}, default=str).encode()
            if len(line) > _LONGEST:
                raise UserError(f"{file}: a line of {len(line):,} bytes; name fewer people and photos in one call")
            # A line that a full disk or a killed process cut stays as it is.
            text = (b"\n" if whole == tail and tail else b"") + line + b"\n"
            if os.write(handle, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StageFailed(f"{file}: the audit log cannot be written ({error.strerror}); {otherwise}") from None


def _who(by: str | None) -> dict[str, Any]:
    # Not the login that the environment names, which anybody can set.
    number = os.getuid()
    try:
        login = pwd.getpwuid(number).pw_name
    except KeyError:
        login = str(number)
    return {"login": login, **({} if by is None else {"by": by})}


def _where() -> dict[str, Any]:
    """Return the machine, the folder, and where a login over the network or a run of the scheduler came from."""
    remote = os.environ.get("SSH_CONNECTION", "").split()[:1]
    run = os.environ.get("DYNAMICID_AIRFLOW_RUN_ID")
    place = {"machine": socket.gethostname(), "folder": str(Path.cwd())}
    return place | ({"from": remote[0]} if remote else {}) | ({"run": run} if run else {})

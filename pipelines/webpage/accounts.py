"""Who may use the page: nobody but this machine, unless there are accounts."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pipelines.core.errors import UserError

LEAST_LENGTH = 12
# Whoever guesses passwords waits after each.
_PAUSE_SECONDS = 1.0


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str, accounts: Mapping[str, str]) -> None:
    """Raise UserError where others could reach a page that asks nobody for a password."""
    if not is_loopback(host) and not accounts:
        raise UserError(
            f"--host {host}: others would reach the page, and it would ask nobody for a password; give --accounts FILE "
            "(lines of name:password), or leave it on 127.0.0.1"
        )


def read_accounts(file: Path) -> dict[str, str]:
    """Return {name: password} of a file with lines `name:password`; empty ones and those that begin with # are skipped.

    Raises UserError where it is missing, others can read it, a line is something else, a name comes twice, or a
    password is shorter than `LEAST_LENGTH`. A password never stands in the message.
    """
    if not file.is_file():
        raise UserError(f"--accounts {file}: no such file; expected lines of name:password")
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise UserError(f"--accounts {file}: others can read it (mode {mode:o}, expected 600); `chmod 600 {file}`")
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        name = name.strip()
        where = f"--accounts {file}, line {number}"
        if not colon or not name:
            raise UserError(f"{where}: expected name:password")
        if len(password) < LEAST_LENGTH:
            raise UserError(f"{where}: the password of {name} has fewer than {LEAST_LENGTH} characters; choose another")
        if name in found:
            raise UserError(f"{where}: {name} is there twice; keep one")
        found[name] = password
    if not found:
        raise UserError(f"--accounts {file}: nobody in it; expected lines of name:password")
    return found


def gatekeeper(accounts: Mapping[str, str]) -> Callable[[str, str], Awaitable[bool]]:
    """Return what Gradio asks at the login: whether name and password belong together."""

    async def knows(name: str, password: str) -> bool:
        # An unknown name takes as long as a wrong password.
        right = hmac.compare_digest(accounts.get(name, "").encode(), password.encode())
        if right and name in accounts:
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
        return False

    return knows

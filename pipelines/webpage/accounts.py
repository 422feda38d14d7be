"""Who may use the page: this machine alone, or the people in a file of accounts."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.versions.git import would_commit

MIN_LENGTH = 12
# Slows down guessing.
_PAUSE_SECONDS = 1.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str, accounts: Mapping[str, str]) -> None:
    """Raise UserError where other machines could reach a page without accounts."""
    if not is_loopback(host) and not accounts:
        raise UserError(
            f"--host {host}: other machines could reach the page without a password; give --accounts FILE "
            "(lines of name:password), or leave it on 127.0.0.1"
        )


def read_accounts(file: Path) -> dict[str, str]:
    """Return {name: password} of a file with lines `name:password`, skipping empty lines and those that begin with #.

    Raises UserError where the file is missing, readable by others or about to be committed by git, has another kind of
    line, repeats a name, or has a password shorter than `MIN_LENGTH`. The message never contains a password.
    """
    if not file.is_file():
        raise UserError(f"--accounts {file}: no such file; expected lines of name:password")
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise UserError(f"--accounts {file}: others can read it (mode {mode:o}, expected 600); `chmod 600 {file}`")
    if would_commit(file):
        raise UserError(
            f"--accounts {file}: git would commit it; move it out of the repository, or call it `accounts` at the top "
            "of the checkout, which git ignores"
        )
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        name = name.strip()
        where = f"--accounts {file}, line {number}"
        if not colon or not name:
            raise UserError(f"{where}: expected name:password")
        if len(password) < MIN_LENGTH:
            raise UserError(f"{where}: the password of {name} has fewer than {MIN_LENGTH} characters; choose another")
        if name in found:
            raise UserError(f"{where}: {name} is listed twice; keep one")
        found[name] = password
    if not found:
        raise UserError(f"--accounts {file}: no account in it; expected lines of name:password")
    return found


def password_check(accounts: Mapping[str, str]) -> Callable[[str, str], Awaitable[bool]]:
    """Return the function by which Gradio checks name and password at login."""

    async def check(name: str, password: str) -> bool:
        # An unknown name takes as long as a wrong password.
        right = hmac.compare_digest(accounts.get(name, "").encode(), password.encode())
        if right and name in accounts:
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
        return False

    return check

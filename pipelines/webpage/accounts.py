"""Who may use the page: this machine alone, or the people in a file of accounts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from pipelines.core.documents import read_text
from pipelines.core.errors import UserError
from pipelines.versions.git import would_commit
from pipelines.webpage.budgets import Budget

_LOG = logging.getLogger(__name__)
# Where the request comes from that is being answered (`neighbourhood`).
CALLER: ContextVar[str] = ContextVar("caller", default="")
MIN_LENGTH = 12
# Wrong passwords in a minute.
_WRONG_BY_CALLER, _WRONG_BY_NAME = 10, 30
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


def neighbourhood(address: str) -> str:
    """Return what one caller can have many addresses of: the loopback, or a network /64 of IPv6; else the address."""
    if is_loopback(address):
        return "this machine"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return parsed.ipv4_mapped.compressed if parsed.ipv4_mapped else str(ipaddress.ip_network((int(parsed), 64), False))


def check_host(host: str, accounts: Mapping[str, str], public_url: str | None = None) -> None:
    """Raise UserError where other machines could reach a page without accounts, or `public_url` is no address."""
    if public_url is not None:
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise UserError(f"--public-url {public_url}: expected an address such as https://page.example.org")
    if not accounts and (public_url is not None or not is_loopback(host)):
        given = f"--host {host}" if public_url is None else f"--public-url {public_url}"
        raise UserError(
            f"{given}: other machines could reach the page without a password; give --accounts FILE "
            "(lines of name:password), or leave it on 127.0.0.1"
        )


def allowed_hosts(host: str, public_url: str | None) -> list[str]:
    """Return the names in a request's `Host` under which the page answers: its own, and no others.

    Otherwise a page of another site could reach it under that site's name, which the attacker lets point here (DNS
    rebinding).
    """
    names = {"localhost", "127.0.0.1", "::1", host.strip("[]")}
    if not is_loopback(host):
        import psutil

        names |= {socket.gethostname()}
        names |= {address.address for found in psutil.net_if_addrs().values() for address in found}
    if public_url is not None:
        names.add(urlsplit(public_url).hostname or "")
    # An IPv6 address has brackets in `Host`; what is no name of a host (hardware addresses) never matches.
    return sorted(f"[{name}]" if ":" in name else name for name in names if name and "*" not in name)


def read_accounts(file: Path) -> dict[str, str]:
    """Return {name: password} of a file with lines `name:password`, skipping empty lines and those that begin with #.

    Raises UserError where the file is missing, not UTF-8, readable by others or about to be committed by git, has
    another kind of line, repeats a name, or has a password shorter than `MIN_LENGTH`. The message never contains a
    password.
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
    for number, line in enumerate(read_text(file).splitlines(), 1):
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


class PasswordCheck:
    """Checks names and passwords; HTTPException (429) after too many wrong ones.

    Wrong ones are counted by address (`neighbourhood`) and by name, so that neither many names nor many addresses help.
    """

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = accounts
        self._by_caller = Budget(_WRONG_BY_CALLER, 60, "too many wrong passwords from your address")
        self._by_name = Budget(_WRONG_BY_NAME, 60, "too many wrong passwords for this name")

    def is_right(self, name: str, password: str, caller: str) -> bool:
        """Return whether this is the password of this account; `caller` is a neighbourhood."""
        self._by_caller.check(caller)
        self._by_name.check(name)
        # An unknown name takes as long as a wrong password.
        right = hmac.compare_digest(self._accounts.get(name, "").encode(), password.encode("utf-8", "replace"))
        if right and name in self._accounts:
            return True
        self._by_caller.spend(caller)
        self._by_name.spend(name)
        _LOG.warning("login refused: %.80r from %s", name, caller)
        return False

    async def at_login(self, name: str, password: str) -> bool:
        """Check the form of the login, for Gradio; the request comes from `CALLER`."""
        if self.is_right(name, password, CALLER.get()):
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
        return False

    def by_header(self, request: Request) -> str | None:
        """Return the account of a program that sends `Authorization: Basic …`, as Prometheus does; None without one."""
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        with contextlib.suppress(ValueError):
            name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            caller = neighbourhood(request.client.host if request.client else "")
            if kind.lower() == "basic" and colon and self.is_right(name, password, caller):
                return name
        return None

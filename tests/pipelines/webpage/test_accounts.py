"""The page needs accounts where other machines can reach it, and checks passwords."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from pipelines.core.errors import UserError
from pipelines.webpage import accounts, budgets
from pipelines.webpage.accounts import (
    CALLER,
    PasswordCheck,
    allowed_hosts,
    check_host,
    is_loopback,
    neighbourhood,
    read_accounts,
)
from tests.processes import git


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_account(host: str) -> None:
    assert is_loopback(host)
    check_host(host, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_other_addresses_need_an_account(host: str) -> None:
    with pytest.raises(UserError, match="give --accounts FILE"):
        check_host(host, {})
    check_host(host, {"ada": "a long password"})


def test_a_page_behind_a_proxy_needs_an_account_and_an_address() -> None:
    with pytest.raises(UserError, match="give --accounts FILE"):
        check_host("127.0.0.1", {}, "https://page.example.org")
    for url in ("page.example.org", "https://", "https://page.example.org/below", "file:///x", "https://a?b=c"):
        with pytest.raises(UserError, match="expected an address such as"):
            check_host("127.0.0.1", {"ada": "a long password"}, url)


def test_the_page_answers_to_its_own_names_only() -> None:
    assert allowed_hosts("127.0.0.1", None) == ["127.0.0.1", "[::1]", "localhost"]
    assert "page.example.org" in allowed_hosts("127.0.0.1", "https://page.example.org:8443")
    everywhere = allowed_hosts("0.0.0.0", None)
    assert socket.gethostname() in everywhere
    assert "*" not in "".join(everywhere)


def test_accounts_are_read(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("# who\n\nada:correct:horse battery\ngrace:another long one\n", encoding="utf-8")
    file.chmod(0o600)
    assert read_accounts(file) == {"ada": "correct:horse battery", "grace": "another long one"}


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("ada:correct horse battery\n", 0o644, "others can read it"),
        ("", 0o600, "no account in it"),
        ("ada\n", 0o600, "line 1: expected name:password"),
        ("ada:short\n", 0o600, "fewer than 12 characters"),
        ("ada:correct horse battery\nada:correct horse staple\n", 0o600, "line 2: ada is listed twice"),
        ("ada:correct horse \udcff battery\n", 0o600, "not a text file in UTF-8"),
    ],
)
def test_bad_accounts_are_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    file = tmp_path / "accounts"
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(mode)
    with pytest.raises(UserError, match=message) as refused:
        read_accounts(file)
    assert "horse" not in str(refused.value)
    assert "short" not in str(refused.value)


def test_accounts_that_git_would_commit_are_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    file = tmp_path / "logins"
    file.write_text("ada:correct horse battery\n")
    file.chmod(0o600)
    with pytest.raises(UserError, match="git would commit it"):
        read_accounts(file)
    (tmp_path / ".gitignore").write_text("/logins\n")
    assert read_accounts(file) == {"ada": "correct horse battery"}
    git(tmp_path, "add", "--force", "logins")
    with pytest.raises(UserError, match="git would commit it"):
        read_accounts(file)


def test_only_the_right_password_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_PAUSE_SECONDS", 0.0)
    check = PasswordCheck({"ada": "correct horse battery"}).at_login
    tries = [("ada", "correct horse battery"), ("ada", "wrong"), ("eve", ""), ("", "")]
    assert [asyncio.run(check(*given)) for given in tries] == [True, False, False, False]


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("127.0.0.1", "127.200.0.9", True),
        ("127.0.0.1", "::1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("", "testclient", False),
    ],
)
def test_many_addresses_of_one_caller_are_one(one: str, other: str, are_one: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is are_one


def test_guesses_are_counted_by_address_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(budgets.time, "time", lambda: 6000.0)
    check = PasswordCheck({"ada": "correct horse battery", "grace": "another long one"}).at_login

    def guesses(caller: str, names: list[str], password: str = "wrong") -> list[bool | int]:
        CALLER.set(caller)
        found: list[bool | int] = []
        for name in names:
            try:
                found.append(asyncio.run(check(name, password)))
            except HTTPException as refusal:
                found.append(refusal.status_code)
        return found

    assert guesses("192.0.2.1", [f"name {n}" for n in range(11)]) == [False] * 10 + [429], "one address, many names"
    assert guesses("192.0.2.1", ["ada"], "correct horse battery") == [429]
    for caller in ("192.0.2.2", "192.0.2.3", "192.0.2.4"):
        assert guesses(caller, ["ada"] * 10) == [False] * 10
    assert guesses("192.0.2.5", ["ada"], "correct horse battery") == [429], "one name, many addresses"
    assert guesses("192.0.2.5", ["grace"], "another long one") == [True]
    monkeypatch.setattr(budgets.time, "time", lambda: 6060.0)
    assert guesses("192.0.2.1", ["ada"], "correct horse battery") == [True], "a minute later"

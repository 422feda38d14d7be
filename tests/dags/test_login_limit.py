"""Whoever guesses passwords of Airflow has to wait, and nobody else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.processes import run

RIGHT = "right"
_GUESS = """
from airflow.api_fastapi.app import create_app
from starlette.testclient import TestClient
client = TestClient(create_app(apps="all"))
guesses = [client.post("/auth/token", json={"username": "admin", "password": f"guess {n}"}) for n in range(12)]
print("CODES", [answer.status_code for answer in guesses], guesses[-1].headers["retry-after"])
print("HEALTH", client.get("/api/v2/version").status_code)
"""


@pytest.fixture
def plugin(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(project / "dags" / "plugins")
    import login_limit

    return login_limit


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Airflow:
    """An application that answers after other tasks had their turn, and counts the passwords that it checked."""

    def __init__(self, status: int | None = None) -> None:
        self.checked, self.status = 0, status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.checked += 1
        await asyncio.sleep(0)
        status = self.status or (201 if scope["password"] == RIGHT else 401)
        await send({"type": "http.response.start", "status": status, "headers": []})


def post(
    app: Any,
    password: str = "wrong",
    address: str = "192.0.2.1",
    path: str = "/auth/token",
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-length", b"40"),),
) -> Any:
    async def call() -> int:
        answers: list[int] = []

        async def send(message: Any) -> None:
            answers.extend([message["status"]] if "status" in message else [])

        client = (address, 1) if address else None
        scope = {"type": "http", "method": "POST", "path": path, "client": client, "headers": headers}
        await app({**scope, "password": password}, None, send)
        return answers[0]

    return call()


def codes(calls: list[Any]) -> list[int]:
    async def together() -> list[int]:
        return list(await asyncio.gather(*calls))

    return asyncio.run(together())


def test_guesses_that_come_at_once_are_counted(plugin: ModuleType) -> None:
    airflow, clock = Airflow(), Clock()
    app = plugin.LoginLimit(airflow, limit=3, seconds=60, clock=clock)
    assert sorted(codes([post(app, path=path) for path in ("/auth/token", "/auth/token/cli") * 100])) == [
        *[401] * 3,
        *[429] * 197,
    ]
    assert airflow.checked == 3
    clock.now = 59
    assert codes([post(app, RIGHT)]) == [429]
    clock.now = 61
    assert codes([post(app, RIGHT)]) == [201]


def test_other_addresses_and_right_passwords_are_served(plugin: ModuleType) -> None:
    airflow = Airflow()
    app = plugin.LoginLimit(airflow, limit=3, seconds=60, clock=Clock())
    assert set(codes([post(app, RIGHT) for _ in range(3)])) == {201}
    assert codes([post(app, RIGHT) for _ in range(2)]) == [201, 201], "right passwords are not counted"
    assert codes([post(app) for _ in range(4)])[-1] == 429
    assert codes([post(app, RIGHT, "192.0.2.2"), post(app, path="/api/v2/dags")]) == [201, 401]


@pytest.mark.parametrize("length", [b"", b"8193", b"60000000", b"9" * 20, b"-1", b"\xc2\xb2", None])
def test_the_body_of_a_login_is_small(plugin: ModuleType, length: bytes | None) -> None:
    """Airflow reads it whole before it checks the password."""
    airflow = Airflow()
    app = plugin.LoginLimit(airflow, limit=3, seconds=60, clock=Clock())
    headers = () if length is None else ((b"content-length", length),)
    assert codes([post(app, headers=headers) for _ in range(9)]) == [413] * 9
    assert (airflow.checked, codes([post(app, RIGHT)])) == (0, [201])


@pytest.mark.parametrize("status", [400, 415, 422, 500])
def test_what_checks_no_password_is_not_counted(plugin: ModuleType, status: int) -> None:
    app = plugin.LoginLimit(Airflow(status), limit=3, seconds=60, clock=Clock())
    assert set(codes([post(app)]) + codes([post(app)]) + codes([post(app)]) + codes([post(app)])) == {status}


@pytest.mark.parametrize(
    ("addresses", "together"),
    [
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3", "2001:db8:0:0:9::4"], True),
        (["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:0:4::1"], False),
        (["127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"], True),
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"], True),
        (["::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3", "192.0.2.4"], False),
        (["fe80::1%eth0", "fe80::2%eth1", "fe80::3%eth0", "fe80::4%eth0"], True),
        (["", "", "", ""], True),
        (["a socket", "a socket", "a socket", "a socket"], True),
    ],
)
def test_addresses_of_one_machine_are_one(plugin: ModuleType, addresses: list[str], *, together: bool) -> None:
    app = plugin.LoginLimit(Airflow(), limit=3, seconds=60, clock=Clock())
    assert (429 in [codes([post(app, address=one)])[0] for one in addresses]) is together


def test_many_addresses_take_no_memory_without_end(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_ADDRESSES", 5)
    guesses = plugin.Guesses(3, 60, Clock())
    for number in range(100):
        guesses.take(f"192.0.2.{number}")
    assert len(guesses._times) == 5


def test_airflow_refuses_more_guesses(project: Path, tmp_path: Path) -> None:
    from pipelines.operations.stack.settings import Stack

    own = Stack(project, tmp_path / "stack").environment()
    assert own["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(project / "dags" / "plugins")
    env = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": own["AIRFLOW__CORE__PLUGINS_FOLDER"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "PATH": os.environ["PATH"],
    }
    printed = run(sys.executable, "-c", _GUESS, cwd=tmp_path, env=env, without=("AIRFLOW",)).stdout
    answers = next(line for line in printed.splitlines() if line.startswith("CODES"))
    assert answers.startswith(f"CODES {[401] * 10 + [429] * 2}")
    assert 290 < int(answers.split()[-1]) <= 300
    assert "HEALTH 200" in printed

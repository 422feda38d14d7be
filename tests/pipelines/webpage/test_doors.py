"""The page as a stranger, another site and a caller without manners meet it: docs/explanation/doors.md."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page

API = "/gradio_api"
JSON = "application/json"
EVIL = "https://elsewhere.example"
# Which face, negative prompt, width, height and sampler: a call without a client of Gradio has to give every input.
USUAL = (None, "", 0, 0, "", *[None] * 6)
ADA = {"username": "ada", "password": "correct horse battery"}


def send(
    page: Page,
    method: str,
    path: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | Iterable[bytes] = b"",
    *,
    source: str = "127.0.0.1",
) -> tuple[int, dict[str, str], str]:
    """Send exactly these headers (a Host is added where there is none) from `source`; return status, headers, text."""
    headers = list(headers)
    connection = http.client.HTTPConnection("127.0.0.1", int(page.url.rpartition(":")[2]), 60, (source, 0))
    connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in headers))
    for name, value in headers:
        connection.putheader(name, value)
    if isinstance(body, bytes):
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
    else:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(body, encode_chunked=True)
    answer = connection.getresponse()
    # The answer may be endless (events).
    text = "" if answer.headers.get_content_type() == "text/event-stream" else answer.read().decode(errors="replace")
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def call(page: Page, endpoint: str, data: Any, **more: Any) -> str:
    """Call an endpoint; return the refusal or the events of the answer."""
    reply = requests.post(f"{page.url}{API}/call/{endpoint}", json={"data": data}, timeout=60, **more)
    if reply.status_code != 200:
        return reply.text
    return requests.get(f"{page.url}{API}/call/{endpoint}/{reply.json()['event_id']}", timeout=60, **more).text


def file_of(path: str, **more: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def upload(page: Page, photo: Path) -> str:
    with photo.open("rb") as file:
        return requests.post(f"{page.url}{API}/upload", files={"files": file}, timeout=60).json()[0]


@pytest.fixture(scope="module")
def session(page_with_accounts: Page) -> dict[str, str]:
    """The header of a person who is logged in."""
    reply = requests.post(f"{page_with_accounts.url}/login", data=ADA, timeout=60)
    name, value = next((c.name, c.value) for c in reply.cookies if "unsecure" in c.name)
    return {"Cookie": f"{name}={value}"}


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["multipart/form-data; boundary=x", JSON], 400),
        ([JSON, "application/x-www-form-urlencoded"], 400),
        (["multipart/form-data; boundary=x"], 415),
        (["application/x+json"], 415),
    ],
)
def test_a_request_has_the_one_content_type_of_its_address(page: Page, kinds: list[str], status: int) -> None:
    body = json.dumps({"data": [[file_of("http://127.0.0.1:9/x")], "a", None, None, 0, *USUAL]}).encode()
    assert send(page, "POST", f"{API}/call/draw", [("Content-Type", kind) for kind in kinds], body)[0] == status


@pytest.mark.parametrize(
    "path",
    ["/file/http://192.0.2.1/x", "/file=http://192.0.2.1/x", "/proxy=https://a.hf.space/x", "/file=//192.0.2.1/x"],
)
def test_no_address_is_fetched_by_name(page: Page, path: str) -> None:
    status, _, text = send(page, "GET", f"{API}{path}")
    assert status in (403, 404)
    assert "192.0.2.1" not in text, "the page did not ask for it"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    ["/vibe-edit", "/process_recording", "/component_server", "/deep_link?session_hash=x", "/dev/reload", "/user"],
)
def test_addresses_of_gradio_that_the_page_does_not_use_are_closed(page: Page, method: str, path: str) -> None:
    assert send(page, method, f"{API}{path}", [("Content-Type", JSON)], b"{}" * (method == "POST"))[0] == 404


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example", "10.0.0.1:7860", ""])
def test_another_name_gets_no_answer(page: Page, host: str) -> None:
    """A name that its owner lets point to this machine (DNS rebinding)."""
    assert send(page, "GET", "/config", [("Host", host)])[0] == 400


def test_another_site_can_neither_read_nor_upload(
    page: Page, page_with_accounts: Page, session: dict[str, str]
) -> None:
    for path in ("/config", f"{API}/token", f"{API}/info"):
        headers = [*session.items(), ("Origin", EVIL)]
        status, answered, _ = send(page_with_accounts, "GET", path, headers)
        assert status in (403, 404)
        assert "access-control-allow-origin" not in answered
        assert "access-control-allow-credentials" not in answered
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
    for origin in (EVIL, "null", page.url.replace("http:", "https:") + ".elsewhere.example"):
        headers = [("Content-Type", "multipart/form-data; boundary=x"), ("Origin", origin)]
        assert send(page, "POST", f"{API}/upload", headers, form)[0] == 403
    asked = [("Origin", EVIL), ("Access-Control-Request-Method", "POST")]
    assert "access-control-allow-origin" not in send(page, "OPTIONS", f"{API}/queue/join", asked)[1]
    headers = [("Content-Type", "multipart/form-data; boundary=x"), ("Origin", page.url)]
    assert send(page, "POST", f"{API}/upload", headers, form)[0] == 200, "the page itself may"


def test_an_upload_has_few_files(page: Page) -> None:
    """999 files of one byte were one upload of 170 KB that kept the page busy for 5 s."""
    files = [("files", (f"{n}.png", b"x")) for n in range(17)]
    assert requests.post(f"{page.url}{API}/upload", files=files[:16], timeout=60).status_code == 200
    reply = requests.post(f"{page.url}{API}/upload", files=files, timeout=60)
    assert (reply.status_code, reply.text) == (400, "Too many files. Maximum number of files is 16.")


def test_cookies_stay_on_the_site_and_the_page_in_no_frame(page_with_accounts: Page) -> None:
    reply = requests.post(f"{page_with_accounts.url}/login", data=ADA, timeout=60)
    cookies = reply.headers["set-cookie"].lower()
    assert "samesite=none" not in cookies
    assert cookies.count("samesite=lax") == cookies.count("httponly") == 2
    assert requests.get(page_with_accounts.url, timeout=60).headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", [f"{API}/queue/join", f"{API}/run/draw_form", f"{API}/upload", f"{API}/reset"])
def test_nothing_of_a_body_is_read_before_login(page_with_accounts: Page, path: str) -> None:
    """The body never arrives whole; the answer does."""
    with socket.create_connection(("127.0.0.1", int(page_with_accounts.url.rpartition(":")[2])), 10) as stranger:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 10000000\r\n\r\n["
        stranger.sendall(head.encode())
        assert stranger.recv(100).startswith(b"HTTP/1.1 401")


def test_json_is_refused_while_it_arrives(page: Page) -> None:
    begun = time.monotonic()
    many = (b"[" + b"0," * 50_000 for _ in range(8))
    assert send(page, "POST", f"{API}/queue/join", [("Content-Type", JSON)], many)[0] == 413
    assert send(page, "POST", f"{API}/cancel", [("Content-Type", JSON)], b" " * (2**20 + 1))[0] == 413
    few = b'{"data": [' + b"[]," * 60_000 + b"0]}"
    status, _, text = send(page, "POST", f"{API}/call/draw", [("Content-Type", JSON)], few)
    assert (status, "more than" in text) == (400, True), "small in bytes, large in memory"
    assert time.monotonic() - begun < 20


def test_the_log_has_one_short_line_for_a_request_that_does_not_fit(page: Page) -> None:
    before = page.log.stat().st_size
    call(page, "draw_form", ["x" * 200_000])
    call(page, "draw_form", ["\x1b[31mred"] * 21)
    call(page, "draw", [[], "\x1b[2J", None, None, 0, *USUAL])
    requests.get(f"{page.url}{API}/custom_component/%1b[31m/client/a/b", timeout=60)
    call(page, "draw\x1b[31m", [])
    written = page.log.read_text()[before:]
    assert len(written) < 5_000
    assert "Traceback" not in written
    assert "\x1b" not in written


@pytest.mark.parametrize(
    "path", ["/uploads/\0.png", "/uploads/\ud800.png", "/uploads/" + "x" * 5000, "/uploads/../params.yaml", "\0"]
)
def test_a_path_that_names_no_upload_is_refused_in_one_line(page: Page, path: str) -> None:
    before = page.log.stat().st_size
    answer = call(page, "draw", [[file_of(path)], "a photo", None, None, 0, *USUAL])
    assert "no such upload" in answer
    quoted = path.encode(errors="replace").hex(" ").replace(" ", "%")
    assert send(page, "GET", f"{API}/file=%{quoted}"[:4000])[0] == 403
    assert "Traceback" not in page.log.read_text()[before:]


def test_no_folder_of_the_server_is_in_an_answer(page: Page, drawn_people: list[Path]) -> None:
    home = str(page.folder.parents[2])
    path = upload(page, drawn_people[0])
    answers = [path, call(page, "draw", [[file_of(path)], "a photo", None, None, 0, *USUAL])]
    assert "complete" in answers[1]
    answers += [
        call(page, "draw", [[file_of(name)], "a", None, None, 0, *USUAL]) for name in ("/etc/hostname", f"{path}x")
    ]
    answers += [call(page, "draw_form", [file_of("/etc/hostname")] * 21), requests.get(page.url, timeout=60).text]
    answers += [requests.get(f"{page.url}{name}", timeout=60).text for name in ("/config", f"{API}/file={home}/x")]
    assert [answer for answer in answers if home in answer.removeprefix(f"File not allowed: {home}")] == []
    assert requests.get(f"{page.url}{API}/file={path}", timeout=60).content == drawn_people[0].read_bytes()


def test_guesses_of_passwords_are_limited_for_every_name_and_for_the_right_password(
    page_with_accounts: Page, session: dict[str, str]
) -> None:
    def guess(number: int) -> tuple[int, str]:
        name, password = (f"name {number}", "a wrong password") if number % 2 else ("grace", f"guess number {number}")
        body = f"username={name}&password={password}".replace(" ", "+").encode()
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Forwarded-For", f"192.0.2.{number}")]
        status, answered, _ = send(page_with_accounts, "POST", "/login", headers, body, source=f"127.0.0.{number + 3}")
        return status, answered.get("retry-after", "")

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(guess, range(30)))
    # Half of them may have been in the next minute.
    assert sum(status == 400 for status, _ in answers) <= 20
    assert all(0 < int(wait) <= 60 for status, wait in answers if status == 429)
    assert send(page_with_accounts, "GET", "/config", session.items())[0] == 200, "whoever is logged in stays so"


@pytest.fixture
def crowd(page: Page, drawn_people: list[Path]) -> Iterator[list[int]]:
    """The statuses of 40 requests of one caller at once, while all of them still wait."""
    body = json.dumps({"data": [[file_of(upload(page, drawn_people[0]))], "a photo", None, None, 0, *USUAL]}).encode()

    def ask(_: int) -> int:
        return send(page, "POST", f"{API}/call/draw", [("Content-Type", JSON)], body, source="127.0.0.2")[0]

    with ThreadPoolExecutor(40) as pool:
        yield list(pool.map(ask, range(40)))


def test_one_caller_does_not_fill_the_queue(page: Page, drawn_people: list[Path], crowd: list[int]) -> None:
    assert 0 < crowd.count(200) < 40
    assert set(crowd) == {200, 429}
    begun = time.monotonic()
    assert "complete" in call(
        page, "draw", [[file_of(upload(page, drawn_people[0]))], "a photo", None, None, 0, *USUAL]
    )
    waiting = requests.get(f"{page.url}{API}/queue/status", timeout=60).json()["queue_size"]
    assert waiting > 0 or time.monotonic() - begun < 5, "drawn before the requests that came first"

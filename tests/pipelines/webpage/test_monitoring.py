"""What Prometheus gets from the page; on pages of their own, as others may still be drawing or locked out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pipelines.webpage.test_doors import USUAL, call, file_of, send, upload

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page


def test_prometheus_needs_an_account_where_the_page_does(page: Page, page_with_accounts: Page) -> None:
    status, headers, text = send(page_with_accounts, "GET", "/metrics")
    assert (status, headers["www-authenticate"]) == (401, "Basic")
    assert "dynamicid" not in text
    for account, expected in (
        (b"ada:wrong", 401),
        (b"eve:", 401),
        (b"no colon", 401),
        (b"ada:correct horse battery", 200),
    ):
        given = [("Authorization", f"Basic {base64.b64encode(account).decode()}")]
        assert send(page_with_accounts, "GET", "/metrics", given)[0] == expected, account
        if expected == 200:
            assert send(page_with_accounts, "GET", "/config", given)[0] == 401, "nothing else is open to it"
    assert send(page_with_accounts, "GET", "/metrics", [("Authorization", "Basic \xff")])[0] == 401
    status, _, text = send(page, "GET", "/metrics")
    assert status == 200
    assert send(page, "POST", "/metrics")[0] == 404
    assert str(page.folder.parents[2]) not in text
    assert 'dynamicid_model_info{adapter="' in text


def test_prometheus_gets_what_the_page_draws_and_refuses(page: Page, drawn_people: list[Path]) -> None:
    def counts() -> list[float]:
        text = send(page, "GET", "/metrics")[2]
        names = ('pictures_total{outcome="drawn",server="page"}', 'drawing_seconds_count{server="page"}')
        names += ('refusals_total{reason="invalid",server="page"}', 'waiting_requests{server="page"}')
        return [float(text.partition(f"dynamicid_{name} ")[2].splitlines()[0]) for name in names]

    before = counts()
    photo = file_of(upload(page, drawn_people[0]))
    assert "event: complete" in call(page, "draw", [[photo], "a photo", None, None, 0, *USUAL])
    assert "event: error" in call(page, "draw", [[photo], "a photo", None, None, -1, *USUAL])
    assert [after - one for after, one in zip(counts(), before, strict=True)] == [1, 1, 1, 0]

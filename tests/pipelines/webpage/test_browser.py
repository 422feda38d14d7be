"""The page in a browser: an uploaded photo gives a picture, and no request goes to other machines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium"),
]


@pytest.fixture
def tab(page: Page) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1100})
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.url)
        yield tab
        browser.close()
    assert [url for url in asked if not url.startswith((page.url, "data:", "blob:"))] == []


def test_a_photo_becomes_a_picture(tab: Any, page: Page, drawn_people: list[Path]) -> None:
    from playwright.sync_api import expect

    expect(tab.locator("#head")).to_contain_text(page.model.split(",")[0], timeout=60_000)
    tab.locator("#photo-1 input[type=file]").set_input_files(str(drawn_people[0]))
    expect(tab.locator("#photo-1 img").first).to_be_visible(timeout=30_000)
    tab.locator("#prompt textarea").fill("a photo of a person wearing a red t-shirt, blue background")
    tab.locator("#expression-1").get_by_text("sad", exact=True).click()
    tab.locator("#draw").click()
    expect(tab.locator("#picture img").first).to_be_visible(timeout=120_000)
    expect(tab.locator("#heat img").first).to_be_visible()
    expect(tab.locator("#status")).to_contain_text("Seed")
    assert tab.locator("#picture img").first.evaluate("image => image.naturalWidth") == 64


def test_a_missing_photo_is_reported(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.locator("#prompt textarea").fill("a photo of a person")
    tab.locator("#draw").click()
    expect(tab.get_by_text("no photo yet")).to_be_visible(timeout=30_000)


def test_two_drawn_people_in_boxes_that_are_dragged(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.get_by_role("button", name="Two drawn people").click()
    expect(tab.locator("#photo-1 img").first).to_be_visible(timeout=60_000)
    tab.get_by_text("Where each person stands").click()
    boxes = tab.locator("#boxes [data-box]")
    expect(boxes).to_have_count(2)
    tab.get_by_role("button", name="No boxes").click()
    expect(boxes).to_have_count(0)
    for person, (left, right) in enumerate(((0.0, 0.45), (0.55, 1.0))):
        tab.locator(f"#boxes [data-person='{person}']").click()
        tab.locator("#boxes .pad").scroll_into_view_if_needed()
        pad = tab.locator("#boxes .pad").bounding_box()
        tab.mouse.move(pad["x"] + 1 + left * pad["width"], pad["y"] + 1)
        tab.mouse.down()
        tab.mouse.move(pad["x"] + right * pad["width"], pad["y"] + 0.9 * pad["height"], steps=4)
        tab.mouse.up()
        expect(boxes).to_have_count(person + 1)
    drawn = tab.locator("#boxes [data-box='1'] rect")
    assert float(drawn.get_attribute("x")) == pytest.approx(55, abs=2)
    assert float(drawn.get_attribute("width")) == pytest.approx(45, abs=2)
    tab.locator("#draw").click()
    expect(tab.locator("#picture img").first).to_be_visible(timeout=120_000)
    expect(tab.locator("#earlier img").first).to_be_visible()
    tab.get_by_text("A new seed for every picture").click()
    seed = tab.locator("#seed input").input_value()
    tab.locator("#draw").click()
    expect(tab.locator("#earlier img")).to_have_count(2, timeout=120_000)
    assert tab.locator("#seed input").input_value() == seed, "the same seed again"

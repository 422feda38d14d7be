"""The page in a browser, as people use it; no request goes to other machines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.pipelines.webpage.conftest import served

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium"),
]


DESKTOP = {"viewport": {"width": 1400, "height": 1100}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@contextmanager
def opened(page: Page, **context: Any) -> Iterator[Any]:
    """Open the page in a new browser; afterwards check that it asked no other machine for anything."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context(**context).new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.url)
        yield tab
        browser.close()
    assert [url for url in asked if not url.startswith((page.url, "data:", "blob:"))] == []


@pytest.fixture
def tab(page: Page) -> Iterator[Any]:
    with opened(page, **DESKTOP) as tab:
        yield tab


def draw_two_people(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.get_by_role("button", name="Try two drawn people").click()
    for number in (1, 2):
        expect(tab.locator(f"#photo-{number} img").first).to_be_visible(timeout=60_000)
    tab.locator("#draw").click()
    expect(tab.locator("#earlier img").first).to_be_visible(timeout=120_000)


def test_a_photo_becomes_a_picture(tab: Any, page: Page, drawn_people: list[Path]) -> None:
    from playwright.sync_api import expect

    expect(tab.locator("#head")).to_contain_text(page.model.split(",")[0], timeout=60_000)
    tab.locator("#photo-1 input[type=file]").set_input_files(str(drawn_people[0]))
    expect(tab.locator("#photo-1 img").first).to_be_visible(timeout=30_000)
    tab.locator("#prompt textarea").fill("a photo of a person wearing a red t-shirt, blue background")
    tab.locator("#expression-1").get_by_text("sad", exact=True).click()
    tab.locator("#draw").click()
    picture = tab.locator("#pictures img").first
    expect(picture).to_be_visible(timeout=120_000)
    expect(tab.locator("#status")).to_contain_text("Seed")
    assert picture.evaluate("image => image.naturalWidth") == 64
    seed = tab.locator("#seed input").input_value()
    assert picture.get_attribute("alt") == f"{page.model} · seed {seed} · sad"
    tab.get_by_text("Where the identity is applied").click()
    expect(tab.locator("#heat img").first).to_be_visible()


def test_a_missing_photo_is_reported(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.locator("#prompt textarea").fill("a photo of a person")
    tab.locator("#draw").click()
    expect(tab.get_by_text("no photo yet")).to_be_visible(timeout=30_000)


def test_two_drawn_people_in_boxes_that_are_dragged_on_the_picture(tab: Any) -> None:
    from playwright.sync_api import expect

    draw_two_people(tab)
    assert tab.locator("#boxes image").get_attribute("href").startswith("data:image/png"), "the last picture"
    boxes = tab.locator("#boxes [data-box]")
    expect(boxes).to_have_count(0)
    tab.locator("#boxes [data-preset='halves']").click()
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
    tab.get_by_text("A new seed for every picture").click()
    seed = tab.locator("#seed input").input_value()
    tab.locator("#draw").click()
    expect(tab.locator("#earlier img")).to_have_count(2, timeout=120_000)
    assert tab.locator("#seed input").input_value() == seed, "the same seed again"


def test_a_person_who_uses_the_keyboard_alone(tab: Any) -> None:
    from playwright.sync_api import expect

    draw_two_people(tab)
    tab.get_by_role("radio", name="happy").first.focus()
    # Every chip of Gradio is a group of its own: Tab leads to the next one.
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    expect(tab.locator("#expression-1 input:checked")).to_have_attribute("value", "sad")
    outline = "label => getComputedStyle(label).outlineStyle"
    assert tab.locator("#expression-1 label:has(input:checked)").evaluate(outline) == "solid", "where the focus is"
    tab.locator("#boxes [data-preset='halves']").press("Enter")
    pad = tab.locator("#boxes .pad")
    pad.focus()
    for key in ("Shift+ArrowUp", "ArrowDown", "ArrowDown"):
        pad.press(key)
    # The first person has the left half: 5 % less high, then 5 % lower; lower it does not fit.
    expect(tab.locator("#boxes .places")).to_contain_text("Person 1: from 0 % to 50 % of the width, 5 % to 100 %")
    pad.press("Delete")
    expect(tab.locator("#boxes [data-box]")).to_have_count(1)


def test_the_size_is_the_shape_of_what_boxes_are_drawn_on(tab: Any) -> None:
    tab.locator("#width input").fill("128")
    tab.locator("#height input").fill("64")
    tab.locator("#height input").press("Tab")
    tab.wait_for_function("document.querySelector('#boxes .pad').clientWidth > 300", timeout=30_000)
    shape = "pad => pad.clientWidth / pad.clientHeight"
    tab.wait_for_function(f"({shape})(document.querySelector('#boxes .pad')) > 1.9", timeout=30_000)


def test_two_models_side_by_side_and_the_visit_as_a_page(page_home: Path, tmp_path: Path) -> None:
    with served(page_home, "--compare", str(page_home / "models" / "adapter")) as page, opened(page, **DESKTOP) as tab:
        draw_two_people(tab)
        first, second = (tab.locator("#pictures img").nth(place) for place in range(2))
        assert [one.get_attribute("alt").split(" · ")[1] for one in (first, second)] == [
            f"seed {tab.locator('#seed input').input_value()}"
        ] * 2
        assert str(page_home) not in tab.content(), "a folder of the server"
        with tab.expect_download() as download:
            tab.locator("#sheet").click()
        download.value.save_as(tmp_path / "visit.html")
    visit = (tmp_path / "visit.html").read_text(encoding="utf-8")
    assert visit.count('src="data:image/png;base64,') == 2
    assert "surprised, slightly turned to the left" in visit
    assert str(page_home) not in visit


@pytest.mark.parametrize(
    "context", [DESKTOP, DESKTOP | {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"]
)
def test_nothing_keeps_anybody_out(page: Page, context: dict[str, Any]) -> None:
    """axe-core, with everything open; on a phone nothing is wider than the screen."""
    from axe_playwright_python.sync_playwright import Axe

    with opened(page, **context) as tab:
        draw_two_people(tab)
        tab.get_by_text("Where the identity is applied").click()
        tab.get_by_text("More", exact=True).click()
        tab.get_by_text("Denoising steps").wait_for()
        found = Axe().run(tab).response
        assert found["passes"], "axe checked something"
        grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave] == []
        width = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1]

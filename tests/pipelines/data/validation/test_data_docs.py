"""Data Docs work without internet, show the verdict of the command line and say what each expectation protects."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.sections.data import Rights
from pipelines.data.validation.data_docs import ASSETS, docs_of, remove_stale
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.stages.validate import Inputs, Outputs, run
from tests.pipelines.stages.test_validate import dataset

CHROMIUM = shutil.which("chromium")
# Of what the templates ask for: charts, icons and dark colours, which the pages do without.
LEFT_OUT = {"vega@5", "vega-lite@5", "vega-embed@6", "all.min.css", "bootstrap-prefers-dark.css"}
UNMINIFIED = {"bootstrap-table-filter-control.css"}


@pytest.fixture(scope="module")
def failed(params: Params, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Data Docs of a dataset that fails (too few photos) and is warned of, and what the command line prints of it."""
    folder = tmp_path_factory.mktemp("docs")
    faces = dataset(folder / "faces", 10, prompt=None)
    with pytest.raises(StageFailed) as caught:
        run(params, Inputs(faces), Outputs(folder / "report", folder / "docs"))
    return folder / "docs", str(caught.value)


def page_of_results(docs: Path) -> Path:
    (page,) = docs.glob("validations/**/*.html")
    return page


def test_pages_ask_for_nothing_outside_and_every_file_is_there(failed: tuple[Path, str]) -> None:
    docs, _ = failed
    for page in docs.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"(?:<script|<link|<img)\b[^>]*?(?:src|href)=\"([^\"]+)\"", text)
        assert loaded
        for address in loaded:
            parts = urlsplit(address)
            assert not parts.scheme, address
            assert (page.parent / unquote(parts.path)).is_file(), f"{page}: {address}"
        assert "great-expectations-web-assets" not in text
        assert ".part" not in text


def test_every_file_that_the_templates_ask_for_is_here_or_left_out_on_purpose() -> None:
    import great_expectations

    templates = Path(great_expectations.__file__).parent / "render" / "view" / "templates"
    asked = set()
    for template in templates.glob("*.j2"):
        tags = re.findall(r"<(?:link|script)\b[^>]*?(?:src|href)=\"https?://([^\"]+)\"", template.read_text())
        asked |= {address.rsplit("/", 1)[-1] for address in tags}
    assert asked - {path.name for path in ASSETS.iterdir()} == LEFT_OUT | UNMINIFIED
    named = (ASSETS / "LICENCES.txt").read_text()
    assert all(path.name in named for path in ASSETS.glob("*.min.*"))


def test_pages_have_the_verdict_and_the_time_of_the_run(failed: tuple[Path, str]) -> None:
    docs, printed = failed
    page = page_of_results(docs)
    made = datetime.strptime(page.parent.name, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=30)
    for one in (docs / "index.html", page):
        text = one.read_text().replace("&lt;", "<").replace("&gt;", ">")
        assert printed in text
        assert "validate: warning: without_prompt_share in column prompt: 1 > 0.5" in text


def test_a_warning_is_no_failure(params: Params, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "report", tmp_path / "docs")
    verdict = run(params, Inputs(dataset(tmp_path / "faces", prompt=None)), outputs)
    assert verdict.success
    assert [item.name for item in verdict.warnings()] == ["without_prompt_share"]
    text = page_of_results(tmp_path / "docs").read_text()
    assert "Succeeded" in text
    assert "Failed</" not in text
    assert verdict.summary() in text
    assert verdict.summary() == "validate: 40 rows, 14 expectations, all required ones hold"


def test_pages_of_another_verdict_are_removed(params: Params, tmp_path: Path) -> None:
    """As DVC brings an earlier verdict back from its cache, without its pages."""
    report = tmp_path / "validate"
    faces = dataset(tmp_path / "faces", prompt=None)
    assert remove_stale(report) is None, "no pages yet"
    run(params, Inputs(faces), Outputs(report, docs_of(report)))
    assert remove_stale(report) is None
    (report / "verdict.json").write_text((report / "verdict.json").read_text().replace("true", "false", 1))
    assert remove_stale(report) == tmp_path / "data_docs" / "validate"
    assert not (tmp_path / "data_docs" / "validate").exists()


def test_every_expectation_says_what_it_protects(params: Params) -> None:
    checks = dataset_checks(params.validate_, Rights()) + processed_checks(params.validate_processed, 10, 0.5)
    assert all(re.fullmatch(r"[A-Z].{20,}\.", check.protects) for check in checks)


def test_pages_of_another_run_are_replaced_also_where_a_name_is_a_variable(params: Params, tmp_path: Path) -> None:
    faces, docs = dataset(tmp_path / "faces"), tmp_path / "$HOME and ${none}" / "docs"
    for _ in range(2):
        run(params, Inputs(faces), Outputs(tmp_path / "report", docs))
    assert page_of_results(docs).is_file()
    assert [path.name for path in docs.parent.iterdir()] == ["docs"]


@pytest.mark.parametrize("fault", ["a file is in the way", "no permission"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_done(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    docs = tmp_path / "data_docs" / "validate"
    if fault == "no permission":
        docs.mkdir(parents=True)
        (docs / "index.html").write_text("of an earlier run")
        docs.chmod(0o500)
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != docs)  # root may write everywhere
    else:
        docs.parent.write_text("")
    with pytest.raises(
        UserError, match=r"data_docs/validate: Data Docs cannot be written there .*`chmod -R u\+w"
    ) as caught:
        run(params, Inputs(dataset(tmp_path / "faces")), Outputs(tmp_path / "report", docs))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()
    if fault == "no permission":
        docs.chmod(0o700)
        assert (docs / "index.html").read_text() == "of an earlier run"


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.mark.nightly
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium")
def test_the_pages_open_without_internet(failed: tuple[Path, str], browser: Any) -> None:
    from playwright.sync_api import expect

    docs, printed = failed
    context = browser.new_context(offline=True)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto((docs / "index.html").as_uri())
    row = page.locator("tbody tr").first
    expect(row).to_contain_text(f"{datetime.now(UTC):%Y-}")
    expect(page.get_by_text(printed)).to_be_visible()
    for sign in page.locator("button i").all():
        assert sign.evaluate("sign => getComputedStyle(sign, '::before').content") not in ("none", '""'), "a button"
    row.click()
    page.wait_for_url("**/validations/**")
    expect(page.get_by_text("Data asset: photos")).to_be_visible()
    row = page.locator("tr", has_text="Prompts that came with the photos")
    expect(row.locator("i.fa-exclamation-triangle")).to_be_visible()
    failing = page.locator("tr", has_text="There are enough photos to train on.")
    expect(failing.locator("i.fa-times")).to_be_visible()
    assert failing.locator("i.fa-times").evaluate("sign => getComputedStyle(sign, '::before').content") == '"✖"'
    page.get_by_text("Failed Only").click()
    expect(page.get_by_text("A problem with a photo can be traced")).to_be_hidden()
    assert problems == []

"""Pages of rows: self-contained, with box, landmarks and reasons, and without what `export --permitted` leaves out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cli import main
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA
from pipelines.operations.forgetting.local import delete_reports
from pipelines.versions.dvc import dvc
from pipelines.versions.forgotten import append, new_entry
from pipelines.versions.places import known_copies
from tests import processes
from tests.pipelines.photos import Row, accepted_row, dataset_row, encoded, write_shards

CHROMIUM = shutil.which("chromium")
HOSTILE = '<script>alert(1)</script> & "quoted"/a.jpg'


def colour(number: int) -> np.ndarray:
    return np.full((64, 64, 3), (number * 20 % 256, 90, 200), np.uint8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path) -> Path:
    """A checkout with eight photos: anna's, one of them refused, carl's, and a rejected one with an odd name."""
    monkeypatch.chdir(tmp_path)
    processes.git(tmp_path, "init", "-q", "-b", "main")
    assert dvc(tmp_path, "init", "-q", capture=True).returncode == 0
    shutil.copyfile(project / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / ".gitignore").write_text("/data/faces\n/data/processed\n/reports/\n/.dynamicid/\n")
    processes.commit_all(tmp_path, "start")
    faces, rows = [], []
    for number in range(8):
        person = "anna" if number < 4 else "carl"
        name = HOSTILE if number == 7 else f"{person}/{number}.jpg"
        labels = {"consent": "refused" if number == 3 else "granted"}
        photo = dataset_row(name, encoded(colour(number), "PNG"), person, format="PNG", **labels)
        faces.append({**photo, "width": 64, "height": 64})
        known = {key: photo[key] for key in ("image_id", "identity", "file_name", "consent")}
        if number == 7:
            rows.append({**known, "status": "rejected", "reason": "no_face", "split": "train"})
        else:
            more = {"image": encoded(colour(number)), "pose": "front", "sharpness": 3.25}
            rows.append(accepted_row(number, **known, **more))
    write_shards(tmp_path / "data" / "faces", DATASET_SCHEMA, [faces])
    write_shards(tmp_path / "data" / "processed", PROCESSED_SCHEMA, [rows])
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["dataset", *arguments])
        return int(str(end.value.code)), *capsys.readouterr()

    return run


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_page_shows_rows_with_box_landmarks_and_reasons(place: Path, run: Callable) -> None:
    code, out, shown = run("browse")
    page = (place / "reports/browse/index.html").read_text()
    assert (code, out) == (0, "")
    assert "reports/browse/index.html: 7 of 7 rows; not shown: 1 consent denied" in shown
    assert "7 rows, all of them." in page
    assert "Not shown: 1 consent denied." in page
    assert len(titles(page)) == 7
    assert page.count("<rect x=") == 6
    assert page.count("<path d=") == 6
    assert all(text in page for text in ("no_face: no face was found", "front", "3.25", "anna"))
    assert "anna/3.jpg" not in page
    # The rejected photo is shown as it came; nothing of its name is markup.
    assert page.count("data:image/jpeg;base64,") == 7
    assert "<script>alert" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_a_sample_is_named_and_filters_come_before_it(place: Path, run: Callable) -> None:
    code, out, _ = run("browse", "--sample", "2", "--where", "identity=anna", "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["of"], found["left_out"]) == (0, 2, 3, {"consent denied": 1})
    page = (place / "reports/browse/index.html").read_text()
    assert "2 of 3 rows, drawn at random" in page
    assert all(title.startswith("anna/") for title in titles(page))


def test_a_value_that_no_row_has_is_refused_and_the_page_before_stays(place: Path, run: Callable) -> None:
    append(place, new_entry(["carl"], [], {}))
    run("browse")
    page = (place / "reports/browse/index.html").read_text()
    for where, message in (
        (["status=rejectd"], "status=rejectd: no row has this value"),
        (["pose=frnt"], "pose=frnt: no row has this value; did you mean front?"),
        (["identity=Anna"], "identity=Anna: no row has this value; did you mean anna?"),
        (["identity=Carl"], "identity=Carl: no row has this value; there are anna"),
        (["consent=refused"], "consent=refused: no row to show (not shown: 1 consent denied)"),
        (["identity=anna", "reason=no_face"], "identity=anna and reason=no_face: no row to show has all of these"),
        (["statu=ok"], "statu: no column of text; did you mean status?"),
    ):
        code, _, shown = run("browse", *(word for one in where for word in ("--where", one)))
        assert (code, message in shown, shown.strip().count("\n")) == (2, True, 0), shown
    assert (place / "reports/browse/index.html").read_text() == page


def test_forgotten_people_are_on_no_page(place: Path, run: Callable) -> None:
    append(place, new_entry(["carl"], [], {}))
    _, _, shown = run("browse")
    page = (place / "reports/browse/index.html").read_text()
    assert "carl" not in page
    assert page.count("data:image/jpeg") == 3
    assert "4 forgotten on request" in shown


def test_a_refusal_that_came_later_holds(place: Path, run: Callable) -> None:
    file = next((place / "data" / "faces").glob("*.parquet"))
    photo = encoded(colour(0), "PNG")
    again = dataset_row("again.jpg", photo, "anna", consent="withdrawn", format="PNG")
    write_shards(file.parent / "later", DATASET_SCHEMA, [[again]])
    run("browse")
    assert "anna/0.jpg" not in titles((place / "reports/browse/index.html").read_text())


def test_rows_that_fail_an_expectation(place: Path, run: Callable) -> None:
    code, _, shown = run("browse", "--failing", "validate.too_small_share", "--set", "validate.min_side=65")
    assert (code, "7 of 7 rows" in shown) == (0, True)
    page = (place / "reports/browse/validate.too_small_share.html").read_text()
    assert "They fail validate.too_small_share: Most photos are large enough" in page
    code, _, shown = run("browse", "--failing", "validate_processed.doubtful_faces")
    assert (code, "0 of 0 rows" in shown) == (0, True)
    for name, message in (
        ("validate.photos", "photos: is about the whole table"),
        ("photos", "--failing photos: expected validate.NAME or validate_processed.NAME"),
        ("validate.nothing", "--failing validate.nothing: no such expectation; there are photos"),
    ):
        code, _, shown = run("browse", "--failing", name)
        assert (code, message in shown) == (2, True)


def test_data_docs_name_the_command_and_link_to_its_page(place: Path, run: Callable) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["validate", "--set", "validate.min_side=65"])
    run("browse", "--failing", "validate.too_small_share", "--set", "validate.min_side=65")
    (page,) = (place / "reports/data_docs/validate").glob("validations/**/*.html")
    command = r"<code>dynamicid dataset browse --failing (\S+)</code><br>writes <a href=\"(.+?)\""
    links = re.findall(command, page.read_text().replace("<wbr>", ""))
    linked = page.parent / dict(links)["validate.too_small_share"]
    assert linked.resolve() == place / "reports/browse/validate.too_small_share.html"
    assert linked.is_file()


def test_forget_deletes_pages_below_reports_and_knows_the_others(place: Path, run: Callable) -> None:
    run("browse")
    run("browse", "--out", "elsewhere.html")
    assert [(Path(copy.folder).name, copy.what) for copy in known_copies(place)] == [("elsewhere.html", "page of rows")]
    assert delete_reports(place, evaluations=False) == ["reports/browse/index.html"], "whatever split they are in"


def test_wrong_use_is_one_line(place: Path, run: Callable) -> None:
    (place / "file").write_text("")
    for arguments, message in (
        (("--where", "reason"), "--where reason: expected COLUMN=VALUE"),
        (("--where", "yaw=1"), "yaw: no column of text"),
        (("--out", "file/page.html"), "the page cannot be written"),
        (("--processed", "none"), "none: no Parquet shards found"),
    ):
        code, _, shown = run("browse", *arguments)
        assert (code, message in shown, shown.strip().count("\n")) == (2, True, 0)


def change(place: Path, rows: Callable[[list[Row]], list[Row]]) -> None:
    """Write the dataset anew with changed rows, as a version."""
    import pyarrow.parquet as pq

    faces = place / "data" / "faces"
    old = [row for file in sorted(faces.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    shutil.rmtree(faces)
    write_shards(faces, DATASET_SCHEMA, [rows(old)])


def test_versions_are_listed_and_compared(place: Path, run: Callable) -> None:
    assert run("publish")[0] == 0
    new = dataset_row("dora/1.jpg", encoded(colour(11), "PNG"), "dora", format="PNG", source="studio", consent="yes")
    secret = dataset_row("evelyn/1.jpg", encoded(colour(12), "PNG"), "evelyn", format="PNG", consent="refused")
    change(place, lambda rows: [{**rows[0], "identity": "anne"}, *rows[2:], new, secret])
    assert run("publish")[0] == 0
    assert run("list")[1] == "faces-v1\nfaces-v2\n"
    code, listed, _ = run("list", "--long")
    lines = [line.split() for line in listed.splitlines()]
    assert (code, lines[0]) == (0, ["version", "date", "rows", "people", "source"])
    assert [(line[0], *line[3:]) for line in lines[1:]] == [
        ("faces-v1", "8", "2", "none", "stated"),
        ("faces-v2", "9", "5", "studio"),
    ]
    code, out, shown = run("diff", "faces-v1", "latest")
    assert (code, out) == (0, "")
    assert "added: 1 row; 2 people are new: anne, dora\nremoved: 1 row\n" in shown
    assert "changed labels: 1 row (identity 1)" in shown
    page = (place / "reports/browse/faces-v1-faces-v2.html").read_text()
    assert sorted(titles(page)) == ["anna/0.jpg", "anna/1.jpg", "dora/1.jpg"]
    assert "anna → anne" in page
    assert "evelyn" not in page + shown
    assert page.count("data:image/jpeg") == 3
    found = json.loads(run("diff", "faces-v1", "faces-v2", "--json")[1])
    assert [row["file_name"] for row in found["added"]] == ["dora/1.jpg"]
    assert found["changed"][0]["labels"] == {"identity": ["anna", "anne"]}


def test_versions_that_cannot_be_compared_are_named(place: Path, run: Callable) -> None:
    run("publish")
    code, _, shown = run("diff", "faces-v1", "faces-v7")
    assert (code, "version faces-v7: no such tag; there are faces-v1" in shown) == (2, True)
    shutil.rmtree(place / ".dvc" / "cache")
    code, _, shown = run("diff", "faces-v1", "faces-v1")
    assert (code, "version faces-v1: its data is not in the DVC cache; `dvc fetch --all-tags`" in shown) == (2, True)
    assert "not in the cache" in run("list", "--long")[1]


@pytest.mark.nightly
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium")
def test_the_page_filters_and_searches_without_internet(place: Path, run: Callable) -> None:
    from playwright.sync_api import expect, sync_playwright

    run("browse")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        problems: list[Any] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto((place / "reports/browse/index.html").as_uri())
        expect(page.locator("article")).to_have_count(7)
        page.get_by_label("Search").fill("anna")
        expect(page.locator("#count")).to_have_text("3 shown")
        page.get_by_role("button", name="Clear").click()
        page.get_by_label("status").select_option("rejected")
        expect(page.locator("article:visible")).to_have_count(1)
        expect(page.locator("article:visible")).to_contain_text("no face was found")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("rect").first).to_be_visible()
        page.get_by_label("box and landmarks").uncheck()
        expect(page.locator("rect").first).to_be_hidden()
        assert page.locator("image").first.evaluate("image => image.getBBox().width") == 64
        browser.close()
    assert problems == []

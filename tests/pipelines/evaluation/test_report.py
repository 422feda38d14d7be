"""The page of an evaluation: people in rows, marks and meanings, contact sheet, curves, and no address outside."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.evaluation.contact_sheet import contact_sheet, sheet_rows
from pipelines.evaluation.headline import S_MEANING, S
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.report import write_people, write_report
from pipelines.evaluation.report_pictures import drawn_tile
from pipelines.evaluation.variants import MEANINGS
from tests.pipelines.evaluation.conftest import Evaluated


def test_the_contact_sheet_shows_people_alone_and_in_twos_beside_their_references(evaluated: Evaluated) -> None:
    result = evaluated.result
    rows = sheet_rows(result)
    titles = [[title for _, title in tiles] for _, tiles in rows]
    variants = ["model", "without attention gate", "without IMR", "text only"]
    motions = ["model: happy", "model: left"]
    assert len(rows) == 3 + 2
    for index, (asked, tiles) in enumerate(rows[:3]):
        np.testing.assert_array_equal(tiles[0][0], result.photos[result.questions.people[index].reference].image)
        assert titles[index][:5] == ["reference", *variants]
        assert set(titles[index][5:]) <= set(motions)
        assert asked
    for number, (asked, tiles) in enumerate(rows[3:]):
        assert titles[3 + number] == ["left", "right", *variants]
        model = result.drawn[result.plan.multi["model"][number]].image
        np.testing.assert_array_equal(tiles[2][0], model)
        assert asked.startswith("left:")
    assert contact_sheet(result) == contact_sheet(result)
    picture = np.frombuffer(base64.b64decode(contact_sheet(result).partition(",")[2]), np.uint8)
    height, width = cv2.imdecode(picture, cv2.IMREAD_COLOR).shape[:2]
    assert width > height > 300
    assert contact_sheet(result) in evaluated.page


class Page(HTMLParser):
    """Counts what the report shows and collects every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.people = 0
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.people += tag == "section" and named.get("class") == "person"
        self.ids |= {value for key, value in attrs if key == "id" and value}
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]


def test_the_page_has_a_row_per_person_and_needs_no_other_file(evaluated: Evaluated) -> None:
    page = Page(evaluated.page)
    assert page.people == 4
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses if not address.startswith("#"))
    person = evaluated.page.split('<section class="person">')[1].split("</section>")[0]
    for words in (
        "reference",
        "without attention gate",
        "without IMR",
        "true tokens",
        "disgusted",
        "half left",
        "base model",
    ):
        assert words in person
    # Reference, another photo, five variants, the true photo, the pair, seven expressions, five poses.
    assert person.count("<figure") == 21
    rows = evaluated.page.split('<section class="several">')[1:]
    assert len(rows) == len(evaluated.result.questions.multi_cells) == 3
    # A random face that is found has a verdict on expression and pose; the second person has none.
    assert all(row.count("no face") >= 1 and row.count("✓") + row.count("✗") >= 2 for row in rows)
    assert evaluated.document["evaluation_set"] in evaluated.page


def test_people_beyond_the_first_have_pages_of_their_own(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "people"
    for shown, names in ((1, ["0002-0002.html", "0003-0003.html", "0004-0004.html"]), (3, ["0004-0004.html"])):
        monkeypatch.setattr("pipelines.evaluation.report._SHOWN_PEOPLE", shown)
        assert write_people(evaluated.result, folder, "<!-- mark -->")
        assert sorted(file.name for file in folder.iterdir()) == names, "those of another evaluation are gone"
        for file in folder.iterdir():
            text = file.read_text(encoding="utf-8")
            page = Page(text)
            assert page.people == 1
            assert text.count("<figure") == 21
            assert "<!-- mark -->" in text
            assert {name for name in page.addresses if not name.startswith("data:image/")} == {*names} - {file.name}
        assert "evaluation/people" in write_report(evaluated.result, evaluated.document, {})
    monkeypatch.setattr("pipelines.evaluation.report._SHOWN_PEOPLE", 4)
    assert not write_people(evaluated.result, folder, "")
    assert not folder.exists()
    assert "evaluation/people" not in write_report(evaluated.result, evaluated.document, {})


def test_every_name_of_a_metric_leads_to_its_meaning(evaluated: Evaluated) -> None:
    page = Page(evaluated.page)
    links = {address.removeprefix("#") for address in page.addresses if address.startswith("#")}
    assert links <= page.ids
    assert {f"metric-{name}" for name in ("s", "own_over_other", "expression_accuracy", "gate_in_face")} <= links
    for name in (link.removeprefix("metric-") for link in links):
        assert {**MEANINGS, S: S_MEANING}[name].replace("'", "&#39;") in evaluated.page


def test_a_picture_has_its_similarity_on_the_scale_and_a_mark_for_expression_and_for_pose(evaluated: Evaluated) -> None:
    result = evaluated.result
    number = next(number for number, picture in result.plan.cells["model"].items() if result.readings.found[picture])
    tile = drawn_tile(result, "model", number, "model")
    scores, ends = result.scores["model"], [result.metrics[end]["id_similarity"] for end in ("floor", "ceiling")]
    floor, ceiling = (end.value for end in ends if isinstance(end, Interval))
    cosine = scores.columns["id_similarity"][scores.cells.tolist().index(number)]
    assert tile["note"].replace("−", "-") == f"s {(cosine - floor) / (ceiling - floor):.2f}"
    cell, picture = result.questions.cells[number], result.plan.cells["model"][number]
    assert [(one["kind"], one["right"]) for one in tile["verdicts"]] == [
        ("expression", EXPRESSIONS[result.readings.expression[picture]] == cell.expression),
        ("pose", POSES[result.readings.pose[picture]] == cell.pose),
    ]


def test_loss_curves_and_sweeps_are_shown_where_they_are_given(
    evaluate: Callable[..., Evaluated], tmp_path: Path
) -> None:
    file = tmp_path / "losses.csv"
    file.write_text("step,loss,smoothed,probe\n" + "".join(f"{step},{1 / step},0.5,\n" for step in range(1, 40)))
    evaluated = evaluate("sweeps=true", "variant_cells=2", losses={"anchoring": file})
    assert 'alt="loss curves"' in evaluated.page
    assert "identity scale" not in evaluated.page  # this text is in the drawing, as paths
    assert 'alt="identity against prompt along each setting"' in evaluated.page
    sweeps = evaluated.document["sweeps"]
    assert set(sweeps) == {"scale", "threshold", "guidance"}
    assert all({"id_similarity", "prompt_accuracy"} <= set(point) for points in sweeps.values() for point in points)
    assert len({point["clip_t"]["value"] for point in sweeps["scale"]}) > 1
    assert len({point["clip_t"]["value"] for point in sweeps["threshold"]}) > 1


def test_plain_prompts_have_a_report_without_a_share_of_colours(evaluated: Evaluated) -> None:
    """They ask for no colours, so that nothing is measured of them."""

    def without(table: Any) -> Any:
        return {
            name: {metric: one for metric, one in row.items() if metric != "prompt_accuracy"}
            for name, row in table.items()
        }

    result = evaluated.result
    names = ("metrics", "comparisons", "group_metrics", "sweeps")
    page = write_report(
        replace(result, **{name: without(getattr(result, name)) for name in names}), evaluated.document, {}
    )
    assert "have the asked colours" in evaluated.page
    assert "have the asked colours" not in page
    assert 'id="metric-prompt_accuracy"' not in page


def test_names_of_people_are_escaped(evaluated: Evaluated) -> None:
    questions = evaluated.result.questions
    named = replace(questions.people[0], identity="<script>alert(1)</script>")
    result = replace(evaluated.result, questions=replace(questions, people=(named, *questions.people[1:])))
    page = write_report(result, evaluated.document, {})
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page

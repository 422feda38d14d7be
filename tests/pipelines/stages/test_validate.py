"""A dataset is judged by its metadata; failures are listed with their bounds, and a verdict is always written."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.core.sections.data import Consent, Rights, Term
from pipelines.data.rights import COLUMNS, refusal, refusals
from pipelines.data.validation import dataset_frame
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.stages import ingest
from pipelines.stages.validate import Inputs, Outputs, run
from tests.pipelines.data.validation.pages import text_of
from tests.pipelines.photos import write_shards

TEXTS = pa.schema([(name, pa.string()) for name in COLUMNS])


def dataset(folder: Path, count: int = 40, each: Sequence[dict] = (), **changes: object) -> Path:
    """A dataset of two photos a person; `changes` apply to every row, those of `each` to one row each."""
    rows = [
        {
            "image_id": f"{number:064x}",
            "identity": f"p{number // 2}",
            "file_name": f"{number}.jpg",
            "image": b"x",
            "format": "JPEG",
            "width": 200,
            "height": 100,
            "n_bytes": 1,
            "prompt": "a person",
        }
        | changes
        | (each[number] if each else {})
        for number in range(len(each) or count)
    ]
    return write_shards(folder, DATASET_SCHEMA, [rows])


def test_a_good_dataset_passes(params: Params, tmp_path: Path) -> None:
    verdict = run(params, Inputs(dataset(tmp_path / "faces")), Outputs(tmp_path / "report", tmp_path / "docs"))
    assert (verdict.success, verdict.rows, verdict.warnings()) == (True, 40, [])
    written = json.loads((tmp_path / "report" / "verdict.json").read_text())
    assert (written["success"], written["rows"], written["failed"]) == (True, 40, [])
    assert {"name", "column", "success", "observed", "bound", "severity"} <= set(written["expectations"][0])
    assert (tmp_path / "docs" / "index.html").is_file()


def test_awkward_photos_are_too_many(params: Params, awkward_photos: Path, tmp_path: Path) -> None:
    ingest.run(params, ingest.Inputs(awkward_photos), ingest.Outputs(tmp_path / "faces"))
    with pytest.raises(StageFailed) as caught:
        run(params, Inputs(tmp_path / "faces"), Outputs(tmp_path / "report"))
    for part in (
        "4 of 14 expectations failed",
        "photos: 10 < 20 (validate.min_photos)",
        "unreadable_share in column format: 0.2 > 0.05 (validate.max_unreadable_share)",
        "empty_share in column n_bytes: 0.1 > 0.05",
        "too_large_share in column pixels: 0.125 > 0.05 (validate.max_large_share)",
    ):
        assert part in str(caught.value)
    written = json.loads((tmp_path / "report" / "verdict.json").read_text())
    assert written["failed"] == ["photos", "empty_share", "unreadable_share", "too_large_share"]
    assert written["warned"] == ["without_identity_share", "without_prompt_share"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image_id": "a" * 64}, "distinct_share"),
        ({"image_id": "no hash"}, "malformed_image_id"),
        ({"image_id": None}, "without_image_id"),
        ({"format": "EXE"}, "unknown_format"),
        ({"width": 20}, "too_small_share"),
        ({"file_name": None}, "without_file_name"),
    ],
)
def test_each_fault_has_its_expectation(params: Params, tmp_path: Path, changes: dict, name: str) -> None:
    with pytest.raises(StageFailed):
        run(params, Inputs(dataset(tmp_path / "faces", **changes)), Outputs(tmp_path / "report"))
    assert name in json.loads((tmp_path / "report" / "verdict.json").read_text())["failed"]


@pytest.mark.parametrize(
    ("consents", "rights"),
    [
        (("granted", " Yes ", None, "refused", "no", "pending"), Rights()),
        (("granted by e-mail", "withdrawn", None), Rights(consent=Consent(allow=("granted*",), unknown="deny"))),
    ],
)
def test_what_the_policy_permits_agrees_with_the_consents(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, consents: tuple[str | None, ...], rights: Rights
) -> None:
    photos = range(20)
    each = [{"image_id": f"{number:064x}", "consent": consents[number % len(consents)]} for number in photos]
    faces, report = dataset(tmp_path / "faces", each=each), tmp_path / "report"
    params = params.model_copy(update={"rights": rights})

    def failed() -> list[str]:
        with contextlib.suppress(StageFailed):
            run(params, Inputs(faces), Outputs(report, tmp_path / "docs"))
        return json.loads((report / "verdict.json").read_text())["failed"]

    assert failed() == []
    pages = [page.read_text() for page in (tmp_path / "docs").rglob("*.html")]
    assert any("has a consent that is a clear yes" in page for page in pages)
    monkeypatch.setattr(dataset_frame, "refusals", lambda _, rows: pa.nulls(rows.num_rows, pa.string()))
    assert failed() == ["permitted_without_consent"], "a policy that lets everything pass"


def test_a_refusal_in_another_row_of_a_permitted_photo_is_found(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = [{"image_id": f"{number:064x}", "consent": "granted"} for number in range(20)]
    each[7] = {"image_id": each[6]["image_id"], "consent": "withdrawn"}
    faces = dataset(tmp_path / "faces", each=each)
    assert run(params, Inputs(faces), Outputs(tmp_path / "report")).success
    monkeypatch.setattr(dataset_frame, "refuses_photo", lambda reasons: pa.array([False] * len(reasons)))
    with pytest.raises(StageFailed, match=r"permitted_without_consent .*\(rights\.consent\)"):
        run(params, Inputs(faces), Outputs(tmp_path / "report"))


def test_a_warning_does_not_fail(params: Params, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faces = dataset(tmp_path / "faces", identity=None, prompt=None)
    verdict = run(params, Inputs(faces), Outputs(tmp_path / "report"))
    assert verdict.success
    assert [item.name for item in verdict.warnings()] == ["without_identity_share", "without_prompt_share"]
    assert "without_identity_share in column identity: 1 > 0.5" in capsys.readouterr().err


def test_no_dataset_is_wrong_use(params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet shards"):
        run(params, Inputs(tmp_path), Outputs(tmp_path / "report"))


@pytest.mark.realdata
def test_real_photos_pass(params: Params, shared: Path, tmp_path: Path) -> None:
    photos = shared / "photos" / "lfw10_krasserm"
    ingest.run(params, ingest.Inputs(photos), ingest.Outputs(tmp_path / "faces"))
    verdict = run(params, Inputs(tmp_path / "faces"), Outputs(tmp_path / "report"))
    assert [item.name for item in verdict.warnings()] == ["without_prompt_share"]


@pytest.mark.nightly
def test_both_engines_give_the_same_verdict_and_pages(params: Params, tmp_path: Path) -> None:
    """Two thousand rows with every fault: copies of refused photos, nulls, several forms of a consent."""
    chance = random.Random(0)
    rows = [
        {
            "image_id": chance.choice([f"{chance.randrange(1500):064x}", f"{number:064x}", "short", None]),
            "identity": chance.choice([f"p{number // 7}", None]),
            "file_name": chance.choice([f"{number}.jpg", f"{number}.jpg", None]),
            "format": chance.choice(["JPEG", "PNG", "JPEG", None, "XBM"]),
            "width": chance.choice([200, 20, 20_000, None]),
            "height": chance.choice([100, 10_000]),
            "n_bytes": chance.choice([0, 1, 10]),
            "prompt": chance.choice(["a person", None]),
            "consent": chance.choice(["granted", " Granted\n", "yes", "not granted", "no", None, None]),
            "licence": chance.choice(["CC0", "all rights reserved", None]),
        }
        for number in range(2000)
    ]
    faces = write_shards(tmp_path / "faces [1] {a}", DATASET_SCHEMA, [rows[:1200], rows[1200:]])
    own = tmp_path / "expectations"
    own.mkdir()
    (own / "team.yaml").write_text(
        "validate:\n  team_longest:\n    expectation: ExpectColumnValueLengthsToBeBetween\n    column: identity\n"
        "    protects: names\n    arguments: {max_value: 3}\n"
    )
    license_only = params.model_copy(update={"rights": Rights(licence=Term(allow=("cc*",)))})
    found = {}
    for engine in ("pandas", "spark"):
        section = license_only.validate_.model_copy(update={"engine": engine})
        update = license_only.model_copy(update={"validate_": section})
        with pytest.raises(StageFailed):
            run(update, Inputs(faces, own), Outputs(tmp_path / engine, tmp_path / f"{engine}_docs"))
        found[engine] = ((tmp_path / engine / "verdict.json").read_text(), text_of(tmp_path / f"{engine}_docs"))
    assert found["pandas"][0] == found["spark"][0]
    assert found["pandas"][1] == found["spark"][1]


def test_python_expectations_are_not_run_on_spark(params: Params, tmp_path: Path) -> None:
    own = tmp_path / "expectations"
    own.mkdir()
    (own / "team.py").write_text("def checks(stage, frame):\n    return []\n")
    on_spark = params.model_copy(update={"validate_": params.validate_.model_copy(update={"engine": "spark"})})
    with pytest.raises(UserError, match=r"team.py: needs a frame of pandas.*validate.engine"):
        run(on_spark, Inputs(dataset(tmp_path / "faces"), own), Outputs(tmp_path / "report"))


@pytest.mark.parametrize(("consent", "success"), [("granted", True), ("not granted", False)])
def test_a_consent_is_matched_as_a_whole(params: Params, consent: str, success: bool) -> None:
    """Great Expectations searches for a pattern anywhere in a text."""
    checks = [
        check for check in dataset_checks(params.validate_, Rights()) if check.name == "permitted_without_consent"
    ]
    frame = pd.DataFrame({"consent_of_permitted": [consent]})
    assert run_checks("validate", checks, frame, None).success is success


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(*[st.sampled_from([None, "", " ", "yes", "no", "granted", "CC0", "x"])] * 3)))
def test_refusals_of_a_table_are_those_of_its_rows(rows: list[tuple[str | None, ...]]) -> None:
    rights = Rights(consent=Consent(unknown="deny"), licence=Term(allow=("cc*",)), source=Term(deny=("x",)))
    table = pa.table(dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else [[]] * 3, schema=TEXTS)
    assert refusals(rights, table).to_pylist() == [refusal(rights, row) for row in table.to_pylist()]

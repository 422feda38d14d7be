"""`dynamicid summary`: the table, its JSON, and the files it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.summary import rows_of, summary
from pipelines.core.errors import UserError
from pipelines.evaluation.variants import SHIPPED, SUMMARISED


def document() -> dict[str, Any]:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    return {
        **{variant: {"id_similarity": interval(0.5)} for variant in SUMMARISED},
        "model": {"id_similarity": interval(0.612), "face_rate": interval(0.9)},
        "normalised": {"model": {"id_similarity": interval(0.347)}, "text_only": {"id_similarity": interval(0.0)}},
    }


def test_the_table_shows_model_and_baselines_and_names_the_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNAMICID_HOME", raising=False)
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(document()))
    summary(metrics=file)
    out, err = capsys.readouterr()
    assert out == ""
    for words in ("id_similarity", "0.612", "0.51 … 0.71", "0.347", "face_rate", "0.900", "reports/index.html"):
        assert words in err
    assert str(tmp_path / "mlflow.db") in err
    printed = json.loads(CliRunner().invoke(app, ["summary", "--metrics", str(file), "--json"]).stdout)
    assert printed["metrics"]["model"]["id_similarity"] == 0.612
    assert printed["mlflow"] == str(tmp_path / "mlflow.db")


def test_no_number_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = {"multi_expression_accuracy": {"value": -10.125, "low": -11.5, "high": -9.5}}
    variants = [*SUMMARISED, SHIPPED]
    (tmp_path / "metrics.json").write_text(json.dumps({"normalised": {}} | dict.fromkeys(variants, longest)))
    summary(metrics=tmp_path / "metrics.json")
    err = capsys.readouterr().err
    assert err.count("-10.125") == len(variants)
    assert "-11.50 … -9.50" in err


def test_what_is_not_measurable_is_said_in_the_table_and_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNAMICID_HOME", raising=False)
    found, unknown = document(), {"value": None, "reason": "recogniser: auc 0.6 < 0.9"}
    for table in (found["model"], found["normalised"]["model"], found["ceiling"]):
        table["id_similarity"] = unknown
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(found))
    summary(metrics=file)
    err = capsys.readouterr().err
    assert "id_similarity: not measurable (recogniser: auc 0.6 < 0.9)" in err
    assert "0.900" in err
    printed = json.loads(CliRunner().invoke(app, ["summary", "--metrics", str(file), "--json"]).stdout)
    assert printed["metrics"]["model"]["id_similarity"] is None
    assert printed["not_measurable"] == {"id_similarity": "recogniser: auc 0.6 < 0.9"}


def test_s_comes_first_for_variants_on_the_scale() -> None:
    rows = rows_of(document())
    assert list(rows["model"]) == ["s", "id_similarity", "face_rate"]
    assert list(rows["ceiling"]) == ["id_similarity"]


def test_the_contact_sheet_is_written_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(document()))
    files = {"metrics": Path("metrics.json"), "report": Path("report.html"), "sheet": Path("sheet.png")}
    with pytest.raises(UserError, match=r"report\.html: no report with a contact sheet; `dynamicid repro` makes one"):
        summary(**files)
    (tmp_path / "report.html").write_text('<img class="sheet" src="data:image/png;base64,UE5H" alt="">')
    summary(**files)
    assert (tmp_path / "sheet.png").read_bytes() == b"PNG"


def test_missing_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dynamicid repro"):
        summary(metrics=tmp_path / "metrics.json")
    for broken in ("{", "[]", "3"):
        (tmp_path / "metrics.json").write_text(broken)
        with pytest.raises(UserError, match=r"metrics\.json: damaged.*dynamicid repro evaluate"):
            summary(metrics=tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="text_only"):
        summary(metrics=tmp_path / "metrics.json")

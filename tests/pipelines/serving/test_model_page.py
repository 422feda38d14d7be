"""What somebody reads on the page of a registered version is true: its example runs, its requirements are installed."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.registry.model_extras import requirements, write_sheet


def test_the_example_of_the_model_card_runs_as_pasted(
    registered: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a span, which shows what was asked without the photos."""
    import mlflow

    card = (project / "pipelines" / "registry" / "model_card.md.j2").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    mlflow.MlflowClient().set_registered_model_alias("dynamicid", "champion", registered.rpartition("/")[2])
    mlflow.set_experiment("pasted")  # tests before may have left one of another database
    with mlflow.start_span("mine"):
        exec(code.replace("{{ model_name }}", "dynamicid"), {})
    assert Image.open("picture.png").size == (64, 64)
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id(), flush=True)
    mine, drawn = trace.data.spans
    assert (mine.name, drawn.name) == ("mine", "draw a picture")
    assert next(iter(drawn.inputs)) == "prompt", "MLflow's list shows the beginning"
    assert drawn.inputs["prompt"] == "a photo of a person wearing a red t-shirt, blue background"
    assert len(drawn.inputs["references"][0]["sha256"]) == 12
    assert drawn.outputs["width"] == 64
    assert len(json.dumps([drawn.inputs, drawn.outputs])) < 1000


def test_the_requirements_are_those_that_are_installed() -> None:
    found = dict(line.split("==") for line in requirements())
    assert {"mlflow", "torch", "diffusers", "accelerate", "insightface", "pillow"} <= set(found)
    assert "dynamicid" not in found, "no registry has it"
    assert all(version(name).split("+")[0] == number for name, number in found.items())


def test_the_pictures_are_the_contact_sheet_of_the_report(tmp_path: Path, project: Path) -> None:
    from pipelines.evaluation.pictures import data_uri

    (line,) = (
        line
        for line in (project / "pipelines" / "evaluation" / "report.html.j2").read_text().splitlines()
        if "{{ sheet }}" in line
    )
    picture = data_uri(np.full((64, 96, 3), (255, 0, 0), np.uint8))
    (tmp_path / "index.html").write_text(f"<html>{line.replace('{{ sheet }}', picture)}</html>")
    assert write_sheet(tmp_path / "index.html", tmp_path / "pictures.png")
    sheet = Image.open(tmp_path / "pictures.png")
    assert (sheet.size, sheet.getpixel((10, 10))) == ((96, 64), (255, 0, 0))
    (tmp_path / "index.html").write_text("<html></html>")
    assert not write_sheet(tmp_path / "index.html", tmp_path / "none.png")

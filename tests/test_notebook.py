"""`notebooks/kaggle.ipynb`: short cells, commands that exist, and a run from clone to report."""

from __future__ import annotations

import base64
import io
import os
import runpy
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.guides import check_command
from tests.processes import SMALL_CHAIN, link_environment

NOTEBOOK = "notebooks/kaggle.ipynb"
FULL_SIZE = {"profile": "sd15", "photos": "/in/my photos", "weights": "/in/weights", "licences": "--accept MIT"}
LAST = ["repro", "summary", "register", "generate", "generate", "lineage"]
FEW = {
    "people": 8,
    "changes": " ".join(f"--set {one}" for one in ("train_anchoring.steps=2", "train_imr.steps=2", *SMALL_CHAIN)),
}


@pytest.fixture
def notebook(project: Path) -> Any:
    return nbformat.read(project / NOTEBOOK, as_version=4)


def commands_of(notebook: Any, folder: Path, **settings: Any) -> list[str]:
    """Run every cell of Python with commands that only write themselves down, and return them."""
    commands: list[str] = []
    place: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.source.startswith("%%"):
            exec(cell.source, place)
            place |= {"run": commands.append, "Image": lambda *_, **__: None, "display": lambda *_: None}
            place |= {"folder": str(folder), "output": str(folder / "missing"), **settings}
    return commands


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["--version", "configure", "synthesize", "ingest", "repro", "register", *LAST]),
        (FULL_SIZE, ["--version", "configure", "weights", "ingest", "calibrate", "doctor", "repro", *LAST]),
    ],
    ids=["tiny", "sd15"],
)
def test_every_command_exists_with_its_options(
    notebook: Any, settings: dict[str, str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "system", lambda command: 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    commands = commands_of(notebook, tmp_path, **settings)
    assert any("install openjdk-17-jre-headless" in one for one in commands), "without Java, root installs it"
    called = [words for program, *words in map(shlex.split, commands) if program == "dynamicid"]
    for words in called:
        check_command(words)
    assert [words[0] for words in called] == names
    assert settings.get("photos", ".dynamicid/demo") in next(words for words in called if words[0] == "ingest")


def test_it_is_short_and_holds_no_results(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15, cell.id
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id
        assert len(cell.id) < 20, "cells have names, not random numbers"


def test_a_command_that_fails_stops_it_and_java_that_is_missing_is_named(
    notebook: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.id in ("imports", "run"):
            exec(cell.source, place)
    for program in ("sh", "make", "grep"):
        (tmp_path / program).symlink_to(place["shutil"].which(program))
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="exit code 2 of: make -s java"):
        place["run"]("make -s java")
    assert "Java 17 or later is missing: apt-get install openjdk-17-jre-headless" in capsys.readouterr().out


def executed(printed: str) -> Any:
    """A notebook with one cell, which printed this and drew a picture."""
    drawn = io.BytesIO()
    Image.new("RGB", (64, 64)).save(drawn, "PNG")
    picture = base64.b64encode(drawn.getvalue()).decode()
    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stdout", text=printed),
        v4.new_output("display_data", {"image/png": picture}, metadata={"image/png": {"width": 32}}),
    ]
    times = {"iopub.execute_input": "2026-01-01T00:00:00+00:00", "shell.execute_reply": "2026-01-01T00:02:00+00:00"}
    cell = v4.new_code_cell("draw()", id="draw", outputs=outputs, metadata={"execution": times})
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n\nText."), cell])


def test_the_page_of_a_run_shows_what_was_printed_and_drawn(project: Path) -> None:
    page_of = runpy.run_path(str(project / "docs" / "scripts" / "notebook.py"))["page_of"]
    lines = "\n".join(f"line {number}" for number in range(50))
    text, pictures = page_of(executed(f"drawing: 0%\rdrawing: 100%\n{project}/params.yaml\n{lines}"))
    assert text.startswith("# Title\n\n`notebooks/kaggle.ipynb` as it was executed, in 2 minutes.\n\nText.\n")
    assert "```python\ndraw()\n```\n\n```text\ndrawing: 100%\nparams.yaml\nline 0\n" in text
    assert "\n… 28 lines …\n" in text
    assert text.index("line 49") < text.index('<img src="../pictures/notebook/draw-1.jpg"')
    assert Image.open(io.BytesIO(pictures["draw-1.jpg"])).size == (32, 32)
    with pytest.raises(ValueError, match=r"/home/me/\.cache: a folder of this machine"):
        page_of(executed("in /home/me/.cache"))


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("settings", [FEW, {}], ids=["few_steps", "in_full"])
def test_it_runs_from_clone_to_report(
    notebook: Any,
    checkout: Path,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clone = tmp_path / "dynamicid"
    settings = {"repository": str(checkout), "folder": str(clone), "output": str(tmp_path), **settings}
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.insert(2, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    # The clone uses this environment, with its own code, instead of one that is installed for it.
    monkeypatch.setenv("PYTHONPATH", str(clone))

    def after(cell: Any, **_: Any) -> None:
        if cell.id == "clone":
            link_environment(clone)

    client = NotebookClient(notebook, timeout=None, on_cell_executed=after, resources={"metadata": {"path": tmp_path}})
    try:
        client.execute()
    finally:
        nbformat.write(notebook, tmp_path / "executed.ipynb")
    assert (tmp_path / "reports" / "index.html").is_file()
    assert (tmp_path / "models" / "adapter" / "config.json").is_file()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum(1 for one in outputs if {"image/png", "image/jpeg"} & set(one.get("data", {}))) == 9

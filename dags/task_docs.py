"""The documentation of a task in Airflow: what it does, what it reads and writes, and what to do when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).resolve().parent
STAGES: dict[str, Any] = yaml.safe_load((_HERE.parent / "dvc.yaml").read_text())["stages"]
# The form and the help of all commands, written by `make reference`.
REFERENCE: dict[str, Any] = json.loads((_HERE / "reference.json").read_text(encoding="utf-8"))
_NOTES: dict[str, Any] = yaml.safe_load((_HERE / "task_docs.yaml").read_text(encoding="utf-8"))
# What tasks read beside the stages; a dot stands for all data of the run.
DATASET, PROCESSED, EVERYTHING = "data/faces", "data/processed", "."
# The pages of a task, which task_links links.
_PAGES = ("docs", "report")
_CODE = ("pipelines/", "model/face", "model/network", "model/inference", "model/processors", "model/training")


def outputs_of(stage: dict[str, Any]) -> list[str]:
    """Return the outputs of a stage of dvc.yaml."""
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())]
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def data_of(stage: dict[str, Any]) -> list[str]:
    """Return what a stage reads of what DVC keeps: the dataset, and outputs of other stages."""
    kept = {DATASET, *(out for one in STAGES.values() for out in outputs_of(one))}
    return [path for path in stage["deps"] if path in kept]


def pages_of(words: str) -> dict[str, str]:
    """Return the pages that the command `words` writes, from its folder, by their kind: `docs` and `report`."""
    notes = _NOTES.get(words.partition(" --")[0]) or {}
    return {kind: notes[kind] for kind in _PAGES if kind in notes}


def doc_of(words: str) -> str | None:
    """Return the documentation, as Markdown, of the command `words`, or of a task of that id without a command.

    None where task_docs.yaml has none: a DAG with such a task is parsed and runs, and a test names the task.
    """
    command = words.partition(" --")[0]
    notes = _NOTES.get(command)
    if notes is None:
        return None
    stage = STAGES.get(command.removeprefix("repro ")) if command.startswith("repro ") else None
    if stage is not None:
        does = f"{stage['desc'][0].upper()}{stage['desc'][1:]}."
        inputs = [f"`{path}`" for path in stage["deps"] if not path.startswith(_CODE)]
        reads = ", ".join([*inputs, f"sections {', '.join(stage['params'])} of `params.yaml`"])
        writes = ", ".join([*(f"`{path}`" for path in outputs_of(stage)), "its run in MLflow"])
    else:
        does = notes.get("does") or REFERENCE["commands"][command]
        reads, writes = notes["reads"], notes["writes"]
    by = "" if "does" in notes else f"\n\nCommand: `dynamicid {words}`"
    return f"{does}{by}\n\n* Reads: {reads}\n* Writes: {writes}\n* When it fails: {notes['fails']}\n"

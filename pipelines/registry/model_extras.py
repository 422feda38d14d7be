"""What makes a registered version useful on MLflow's page: requirements that install, its metrics, its pictures."""

from __future__ import annotations

import base64
import re
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from pipelines.evaluation.headline import figures

_PROJECT = "dynamicid"
# Of the optional parts of the project: all that drawing with MLflow needs.
_EXTRAS = ("tracking",)
# Packages that bring the same module; a machine without a screen has the second.
_INSTEAD = {"opencv-python": "opencv-python-headless"}
_SHEET = re.compile(r'<img class="sheet" src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def requirements() -> list[str]:
    """Return the packages that a version needs besides the project, each with the version that is installed here."""
    from packaging.requirements import Requirement

    parts = [Requirement(text) for text in requires(_PROJECT) or ()]
    found: dict[str, str] = {}
    queue, done = ["", *_EXTRAS], set()
    while queue:
        extra = queue.pop()
        done.add(extra)
        for one in parts:
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            if one.name == _PROJECT:
                queue += one.extras - done
            for name in {one.name, _INSTEAD.get(one.name, one.name)} - {_PROJECT}:
                with suppress(PackageNotFoundError):
                    found[name] = f"{name}=={version(name).split('+')[0]}"
    return sorted(found.values(), key=str.lower)


def of_model(document: dict[str, Any], model_id: str) -> list[Any]:
    """Return the headline of an evaluation as metrics of the logged model, which MLflow shows beside the version."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    values = {name: one["value"] for name, one in figures(document).items() if one["value"] is not None}
    return [Metric(name, float(value), now, 0, model_id=model_id) for name, value in values.items()]


def write_sheet(report: Path, sheet: Path) -> bool:
    """Write the contact sheet of the report as a PNG; return False where it has none, as before this version."""
    found = _SHEET.search(report.read_text(encoding="utf-8"))
    if found is None:
        return False
    sheet.write_bytes(base64.b64decode(found[1]))
    return True

"""Adapter, metrics, report and loss curves are compared with what they recorded about each other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.files import folder_sha256
from pipelines.evaluation.belonging import (
    check_figures,
    check_recogniser,
    check_report,
    check_training_reports,
    metrics_mark,
    record_of,
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of both trainings, with the curve of the second beside it."""
    first = {
        "stage": "train_anchoring",
        "inputs": {"recogniser": digest("network")},
        "reports": {"losses.csv": digest("first curve")},
        "before": None,
    }
    made_by = {"stage": "train_imr", "inputs": {}, "reports": {"losses.csv": digest("curve")}, "before": first}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"made_by": made_by}))
    (folder / "adapter.safetensors").write_text("weights")
    return folder


def test_the_record_of_every_training_is_read(adapter: Path, tmp_path: Path) -> None:
    assert record_of(adapter)["stage"] == "train_imr"
    assert record_of(adapter, "train_anchoring")["stage"] == "train_anchoring"
    (tmp_path / "config.json").write_text("{}")
    assert record_of(tmp_path, "train_imr") is None


def test_a_loss_curve_of_another_training_is_refused(adapter: Path, tmp_path: Path) -> None:
    curve = tmp_path / "losses.csv"
    curve.write_text("curve")
    check_training_reports(adapter, "train_imr", {"losses.csv": curve})
    with pytest.raises(StageFailed, match=r"losses\.csv .* is not of the training that made .*repro train_anchoring"):
        check_training_reports(adapter, "train_anchoring", {"losses.csv": curve})
    (adapter / "config.json").write_text("{}")
    with pytest.raises(StageFailed, match="does not say which train_imr made it"):
        check_training_reports(adapter, "train_imr", {"losses.csv": curve})


@pytest.mark.parametrize("kind", ["record", "settings of earlier versions"])
def test_figures_of_another_adapter_are_refused(adapter: Path, tmp_path: Path, kind: str) -> None:
    own: dict[str, Any] = {"made_by": {"inputs": {"adapter": folder_sha256(adapter)}}}
    if kind != "record":
        own = {"settings": {"adapter": digest("weights")}}
    check_figures(own, tmp_path / "metrics.json", adapter)
    (adapter / "adapter.safetensors").write_text("weights of 5 steps")
    with pytest.raises(StageFailed, match=r"metrics\.json: figures of the adapter \w{12}, .*adapter is \w{12}"):
        check_figures(own, tmp_path / "metrics.json", adapter)
    with pytest.raises(StageFailed, match="it does not say of which adapter"):
        check_figures({}, tmp_path / "metrics.json", adapter)


def test_a_report_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    metrics, report = tmp_path / "metrics.json", tmp_path / "index.html"
    metrics.write_text("{}")
    report.write_text(f"<head>{metrics_mark(metrics.read_bytes())}</head>")
    check_report(report, metrics)
    metrics.write_text('{"steps": 2}')
    with pytest.raises(StageFailed, match=r"index\.html: not the page of .*metrics\.json"):
        check_report(report, metrics)


def test_a_face_pack_with_another_recogniser_is_refused(adapter: Path, tmp_path: Path) -> None:
    """Its embeddings mean nothing to the adapter, which would draw anybody."""
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "detector.onnx").write_text("another")
    (pack / "recogniser.onnx").write_text("network")
    check_recogniser(adapter, pack)
    (pack / "recogniser.onnx").write_text("a network of another pack")
    with pytest.raises(StageFailed, match=r"which the face pack .*pack does not have"):
        check_recogniser(adapter, pack)

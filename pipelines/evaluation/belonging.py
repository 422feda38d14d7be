"""Do the files of an evaluation, and of the training behind it, belong together?

Files that lie side by side need not be of one run: a stage that is called by hand, a copied file or a killed command
replaces one and leaves the other. So every result records what it was made from, and is compared with that when it is
read: `config.json` of an adapter (`made_by`), `metrics.json` (`made_by`, `settings`) and the report (its `meta` tag).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.core.documents import read_object
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import folder_sha256, sha256

# As model.network.adapter names the files of an adapter; importing it would load torch.
_WEIGHTS = "adapter.safetensors"
_CONFIG = "config.json"
MADE_BY = "made_by"
NOT_MEASURABLE = "not measurable"


def read_document(metrics: Path) -> dict[str, Any]:
    """Return the contents of a metrics file; raise UserError where it is missing or no JSON object."""
    if not metrics.is_file():
        raise UserError(f"{metrics}: no such file; `dynamicid repro` runs the stages up to evaluate, which writes it")
    return read_object(metrics, "delete it, and `dynamicid repro evaluate` restores it")


def figure_text(figure: Mapping[str, Any]) -> str:
    """Return the value of a metric in a metrics file with three decimals, or that it is not measurable."""
    return NOT_MEASURABLE if figure["value"] is None else f"{figure['value']:.3f}"


def withheld(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the model's metrics in `document` that are not measurable, each with its reason; the paper's, too."""
    rows = {**document.get("model", {}), **document.get("paper", {}).get("model", {})}
    return {name: str(one["reason"]) for name, one in rows.items() if one["value"] is None}


def withheld_tags(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the MLflow tags of what is not measurable: all metrics, and for every judge that cannot judge, why."""
    if not (metrics := withheld(document)):
        return {}
    reasons = {name: one["reason"] for name, one in document.get("judges", {}).items() if one["reason"]}
    tags = {f"dynamicid.not_measurable.{name}": reason for name, reason in reasons.items()}
    return {"dynamicid.not_measurable": ", ".join(metrics), **tags}


def record_of(adapter: Path, stage: str = "") -> dict[str, Any] | None:
    """Return what the training of an adapter folder recorded, or that of the earlier `stage` that it continued.

    None where there is no record, as in adapters of earlier versions and converted ones. Raises UserError where
    `config.json` is no JSON object.
    """
    file = adapter / _CONFIG
    record = read_object(file, "copy the adapter again").get(MADE_BY)
    while record is not None:
        if not isinstance(record, dict) or not isinstance(record.get("stage"), str):
            raise UserError(f"{file}: damaged: {MADE_BY} is not the record of a training; copy the adapter again")
        if not stage or record["stage"] == stage:
            return record
        record = record.get("before")
    return None


def check_figures(document: Mapping[str, Any], metrics: Path, adapter: Path) -> None:
    """Raise StageFailed unless the figures in `document`, the contents of `metrics`, are those of `adapter`."""
    made_by = document.get(MADE_BY)
    recorded = made_by["inputs"]["adapter"] if made_by else document.get("settings", {}).get("adapter")
    present = folder_sha256(adapter) if made_by else weights_sha256(adapter)
    if recorded != present:
        of = f"figures of the adapter {recorded[:12]}" if recorded else "it does not say of which adapter"
        raise StageFailed(
            f"{metrics}: {of}, {adapter} is {present[:12]}: they are not one result; `dynamicid evaluate` measures "
            f"this adapter, `dynamicid repro` makes both from params.yaml"
        )


def weights_sha256(adapter: Path) -> str:
    """Return the sha256 (hex) of the weights in an adapter folder; "none" where there are none."""
    file = adapter / _WEIGHTS
    return sha256(file) if file.is_file() else "none"


def check_recogniser(adapter: Path, pack: Path) -> None:
    """Raise StageFailed where `adapter` was trained on embeddings of a network that the face pack `pack` lacks."""
    if not (adapter / _CONFIG).is_file() or not pack.is_dir():
        return  # whoever loads them says so
    record = record_of(adapter, "train_anchoring")
    recorded = record and record["inputs"].get("recogniser")
    if recorded and recorded not in {sha256(file) for file in pack.glob("*.onnx")}:
        raise StageFailed(
            f"{adapter}: trained on the embeddings of the recogniser {recorded[:12]}, which the face pack {pack} does "
            "not have: they do not belong together; set preprocess.insightface_root and insightface_name to its pack"
        )


def check_report(report: Path, metrics: Path) -> None:
    """Raise StageFailed unless the page `report` was written with the file `metrics`."""
    if metrics_mark(metrics.read_bytes()) not in report.read_text(encoding="utf-8"):
        raise StageFailed(
            f"{report}: not the page of {metrics} (sha256 {sha256(metrics)[:12]}): they are of different evaluations; "
            "`dynamicid evaluate` writes both"
        )


def metrics_mark(metrics: bytes) -> str:
    """Return the tag by which a report names its metrics file."""
    return f'<meta name="metrics" content="{hashlib.sha256(metrics).hexdigest()}">'


def check_training_reports(adapter: Path, stage: str, reports: Mapping[str, Path]) -> dict[str, Any]:
    """Return the record of training `stage` in `adapter`; raise StageFailed unless it made `reports`.

    `reports` maps `losses.csv` and `metrics.json` to the files that are read.
    """
    record = record_of(adapter, stage)
    if record is None or "reports" not in record:
        raise StageFailed(
            f"{adapter}: it does not say which {stage} made it, so nothing shows that "
            f"{', '.join(map(str, reports.values()))} belongs to it; `dynamicid repro {stage}` trains it"
        )
    for name, file in reports.items():
        present = sha256(file)
        if record["reports"][name] != present:
            raise StageFailed(
                f"{file} (sha256 {present[:12]}) is not of the training that made {adapter}, which wrote "
                f"{record['reports'][name][:12]}; `dynamicid repro {stage}` makes both"
            )
    return record

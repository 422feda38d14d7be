"""A file of a newer format is refused by name, whichever it is; one of format 1, which states none, is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from model.network.adapter_config import read_config
from model.training.cache import RecordStore
from model.training.resume import PROGRESS, Checkpoints
from pipelines.core.errors import UserError
from pipelines.core.formats.folders import enter_state, stated_version
from pipelines.core.formats.rows import stating
from pipelines.core.formats.table import (
    ADAPTER,
    AUDIT,
    BACKUP,
    CALIBRATIONS,
    CHECKPOINT,
    DATASET,
    EXPORT,
    FORGOTTEN,
    KEY,
    PARAMETERS,
    PROCESSED,
    RECORDS,
    SLICES,
    STACK,
    TABLE,
    TRACKING,
    WEIGHTS,
    Format,
    check_format,
)
from pipelines.core.params import load_params
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, open_rows
from pipelines.core.weights.lock import read_lock
from pipelines.core.weights.manifest import read_manifest
from pipelines.data.faces.calibration import read_own
from pipelines.data.ingest.layout import open_source
from pipelines.operations.audit import read_audit
from pipelines.operations.backup.backup import read_backup
from pipelines.operations.stack.settings import saved_ports
from pipelines.registry.settings import check_records
from pipelines.registry.tracking import connect
from pipelines.versions.forgotten import read_ledger


def _json(file: Path, stated: int | None, **content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content if stated is None else {KEY: stated, **content}))
    return file


def _parameters(root: Path, stated: int | None) -> Callable[[], Any]:
    tree = yaml.safe_load((Path(__file__).parents[4] / "profiles" / "tiny.yaml").read_text())
    tree.pop(KEY)
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(tree if stated is None else {KEY: stated, **tree}))
    return lambda: load_params(file)


def _rows(kind: Format, schema: pa.Schema) -> Callable[[Path, int | None], Callable[[], Any]]:
    def write(root: Path, stated: int | None) -> Callable[[], Any]:
        for number, version in enumerate((kind.version, stated)):
            own = schema if version is None else stating(Format(kind.name, version), schema)
            pq.write_table(own.empty_table(), root / f"part-{number}.parquet")
        return lambda: open_rows(root, schema)

    return write


def _state(root: Path, stated: int | None) -> Callable[[], Any]:
    if stated is not None:
        _json(root / ".format.json", stated)
    return lambda: enter_state(SLICES, root)


def _records(root: Path, stated: int | None) -> Callable[[], Any]:
    RecordStore(root, (2,)).append(np.zeros((1, 32), np.uint8), np.ones((1, 2)))
    _json(root / "store.json", stated, shape=[2], dtype="float16")
    return lambda: RecordStore(root, (2,))[np.array([0])]


def _checkpoint(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "step-2" / PROGRESS, stated, stage="train_imr", key="k", step=2, state={})
    return lambda: Checkpoints(root, "train_imr", "k").checked(root / "step-2")


def _adapter(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "config.json", stated or 1)
    return lambda: read_config(root)


def _backup(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "manifest.json", stated, made="2026-11-20", artefacts=None, files={}, new_key=1)
    return lambda: read_backup(root)


def _stack(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "ports.json", stated, postgres=1, airflow=2, mlflow=3)
    return lambda: saved_ports(root)


def _export(root: Path, stated: int | None) -> Callable[[], Any]:
    (root / "1.jpg").write_bytes(b"")
    if stated is not None:
        _json(root / ".dynamicid.json", stated)
    return lambda: open_source(root)


def _forgotten(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "data" / "forgotten.jsonl", stated, when="2026-11-20", people=[], photos=[])
    return lambda: read_ledger(root)


def _audit(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / ".dynamicid" / "audit.jsonl", stated, previous="")
    return lambda: read_audit(root)


def _weights(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "weights.lock", stated, networks={})
    _json(root / "weights.yaml", stated, networks={})
    return lambda: (read_lock(root), read_manifest(root))


def _calibrations(root: Path, stated: int | None) -> Callable[[], Any]:
    _json(root / "calibrations.yaml", stated, recognisers={})
    return lambda: read_own(root)


def _tracking(root: Path, stated: int | None) -> Callable[[], Any]:
    tags = {} if stated is None else {"dynamicid.format": str(stated)}
    return lambda: check_records(SimpleNamespace(tags=tags), str(root / "mlflow.db"))


CASES: dict[Format, Callable[[Path, int | None], Callable[[], Any]]] = {
    PARAMETERS: _parameters,
    DATASET: _rows(DATASET, DATASET_SCHEMA),
    PROCESSED: _rows(PROCESSED, PROCESSED_SCHEMA),
    SLICES: _state,
    RECORDS: _records,
    CHECKPOINT: _checkpoint,
    ADAPTER: _adapter,
    BACKUP: _backup,
    STACK: _stack,
    EXPORT: _export,
    FORGOTTEN: _forgotten,
    AUDIT: _audit,
    WEIGHTS: _weights,
    CALIBRATIONS: _calibrations,
    TRACKING: _tracking,
}
# Opened by the same function as SLICES.
ALSO = {"results of curation"}


def test_every_format_of_the_table_has_a_case() -> None:
    named = {stored.format.name for stored in TABLE}
    assert {kind.name for kind in CASES} | ALSO == named


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.name)
def test_a_newer_format_is_refused_by_name(kind: Format, tmp_path: Path) -> None:
    read = CASES[kind](tmp_path, kind.version + 1)
    with pytest.raises((UserError, ValueError)) as refused:
        read()
    message = str(refused.value)
    assert message.startswith(str(tmp_path))
    assert f"{kind.name} in format {kind.version + 1}, this program reads formats up to {kind.version}" in message
    assert "upgrade the program (git pull, make env)" in message


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.name)
def test_format_1_and_the_present_one_are_read(kind: Format, tmp_path: Path) -> None:
    for stated in (None, kind.version):
        folder = tmp_path / str(stated)
        folder.mkdir()
        CASES[kind](folder, stated)()


@pytest.mark.parametrize("stated", [0, -1, True, "2", 1.5])
def test_what_is_no_version_is_named(stated: Any) -> None:
    with pytest.raises(UserError, match=r"f: format .* is not a version of parameters; expected 1 to 5"):
        check_format(PARAMETERS, "f", stated)


def test_a_newer_state_stays_as_it_is(tmp_path: Path) -> None:
    marker = _json(tmp_path / ".format.json", 9)
    (tmp_path / "slice.arrow").write_bytes(b"x")
    with pytest.raises(UserError, match="results of preprocessing in format 9"):
        enter_state(SLICES, tmp_path)
    assert json.loads(marker.read_text()) == {KEY: 9}
    marker.write_text("{")
    with pytest.raises(UserError, match=r"\.format\.json: damaged"):
        stated_version(SLICES, marker)


def test_the_experiment_states_the_version_and_a_newer_one_is_refused(mlflow_checkout: Path) -> None:
    from mlflow import MlflowClient

    (mlflow_checkout / "mlflow.db").unlink()
    connect(mlflow_checkout)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("dynamicid")
    assert experiment.tags["dynamicid.format"] == str(TRACKING.version)
    client.set_experiment_tag(experiment.experiment_id, "dynamicid.format", "9")
    with pytest.raises(UserError, match=r"mlflow\.db: a tracking database in format 9, this program reads"):
        connect(mlflow_checkout)

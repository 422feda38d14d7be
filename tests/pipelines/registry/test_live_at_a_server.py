"""Losses and sample pictures that a training notes while MLflow's server is away are there when it is back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.execution import note_row, note_samples
from tests.pipelines.registry.test_live import made, repro, root
from tests.pipelines.registry.test_register_at_a_server import Proxy, server

__all__ = ["made", "root", "server"]


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["cuts", "503", "hangs"])
def test_nothing_is_lost_while_the_server_is_away(
    root: Path, server: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(server, "POST /api/2.0/mlflow/runs/log-batch", how, 30, late=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    seen: dict[str, Any] = {}

    def training() -> None:
        begin = time.monotonic()
        while proxy.back is None or time.monotonic() < proxy.back + 20:
            step = len(seen)
            seen[str(step)] = proxy.away
            note_row({"step": step, "loss": 1 / (step + 1), "probe": None})
            if step % 10 == 0:
                note_samples(step, np.full((8, 8, 3), step % 256, np.uint8))
            assert time.monotonic() - begin < 240, "the server was never asked"
            time.sleep(0.5)

    from mlflow.tracking import MlflowClient

    run = repro(root, "train_imr", training)
    assert sum(seen.values()) > 40, "rows were noted while it was away"
    client = MlflowClient(server, registry_uri=server)
    steps = [one.step for one in client.get_metric_history(run.info.run_id, "loss")]
    assert set(range(1, len(seen))) <= set(steps)
    grids = {item.path.split("+")[2] for item in client.list_artifacts(run.info.run_id, "images")}
    assert grids == {str(step) for step in range(0, len(seen), 10)}

"""An evaluation that is divided over processes: the same result, and a process that dies is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.params import Params
from pipelines.evaluation.batches import Batch
from pipelines.evaluation.division import Helpers
from pipelines.evaluation.evaluate import evaluate


@pytest.mark.realdata
@pytest.mark.nightly
def test_a_process_that_dies_is_named_and_two_processes_give_the_same_result(
    *,
    random_params: Params,
    processed: Path,
    adapter_folder: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(name: str, processes: int) -> tuple[bytes, bytes]:
        changed = {"processes": processes, "batch_size": 8}
        params = random_params.model_copy(update={"evaluate": random_params.evaluate.model_copy(update=changed)})
        files = {kind: tmp_path / f"{name}.{kind}" for kind in ("metrics", "report")}
        evaluate(params, processed, adapter_folder[2], work=tmp_path / name, **files)
        return files["metrics"].read_bytes(), files["report"].read_bytes()

    try:
        expected = run("alone", 1)
        with monkeypatch.context() as patch:
            patch.setattr(Helpers, "run", killing(Helpers.run))
            with pytest.raises(StageFailed, match=r"drawing process \d+ ended by SIGKILL; .* evaluate again to go on"):
                run("divided", 2)
        drawn = {file.name for file in (tmp_path / "divided").glob("*.npz")}
        assert drawn
        assert run("divided", 2) == expected
        assert drawn <= {file.name for file in (tmp_path / "divided").glob("*.npz")}
    finally:
        torch.set_num_threads(threads)


def killing(run: Any) -> Any:
    """Return `Helpers.run` with the death of a process after the first batch."""

    def killed(helpers: Helpers, *arguments: Any) -> Iterator[Batch]:
        for batch in run(helpers, *arguments):
            for process in list(helpers._processes.values())[:1]:
                os.kill(process.pid, signal.SIGKILL)
            yield batch

    return killed

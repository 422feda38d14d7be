"""A worker process loads the driver's networks once and uses only its GPU."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.version import analyser_version
from pipelines.data.preprocessing.worker_analyser import use_own_gpu, worker_analyser
from tests.pipelines.photos import real_networks


@pytest.fixture
def there(project: Path, shared: Path) -> Preprocess:
    return load_params(project / "profiles" / "tiny.yaml", real_networks(shared)).preprocess


@pytest.mark.realdata
def test_shipped_networks_are_found_in_the_workers_own_folder(
    there: Preprocess, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = analyser_version(there)
    shutil.copytree(shared / "weights" / "insightface", tmp_path / "networks" / "insightface")
    monkeypatch.chdir(tmp_path)
    away = there.model_copy(update={"insightface_root": "/nowhere/insightface"})
    shipped = there.model_copy(update={"insightface_root": "networks/insightface"})
    analyser = worker_analyser(away, shipped, version)
    assert analyser.analyse([b""])[0].reason == "empty"
    assert worker_analyser(away, shipped, version) is analyser
    with pytest.raises(UserError, match="no such folder"):
        worker_analyser(away, away, version)


@pytest.mark.realdata
def test_a_worker_with_other_networks_libraries_or_code_is_refused(there: Preprocess) -> None:
    with pytest.raises(UserError, match=re.escape("has other networks, libraries or code than the driver")):
        worker_analyser(there, there, "a version of another time")


def test_a_worker_keeps_the_first_gpu_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    use_own_gpu(None)
    use_own_gpu(SimpleNamespace(resources=dict))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    for address in ("3", "1"):
        use_own_gpu(SimpleNamespace(resources=lambda at=address: {"gpu": SimpleNamespace(addresses=[at])}))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"

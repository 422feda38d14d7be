"""The present dataset is compared with the one that the champion's tags name, brought from DVC's cache."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import rows_in
from pipelines.registry.drift.against_champion import run
from pipelines.registry.drift.features import read_sample
from pipelines.registry.drift.kept import keep_sample, kept_sample
from pipelines.registry.registry import open_registry
from pipelines.versions.dvc import dvc
from tests.processes import dynamicid

SMALL = ["drift.resamples=10"]


@pytest.fixture
def params(project: Path) -> Params:
    return load_params(project / "profiles" / "tiny.yaml", SMALL)


def hash_of(root: Path, folder: str) -> str:
    assert dvc(root, "add", "-q", folder, capture=True).returncode == 0
    return str(yaml.safe_load((root / f"{folder}.dvc").read_text())["outs"][0]["md5"])


def test_drift_is_none_then_stops_and_is_reported_everywhere(
    mlflow_checkout: Path, write_version: Any, params: Params, project: Path
) -> None:
    assert run(params, mlflow_checkout, mlflow_checkout / "drift").state == "no_champion"
    assert json.loads((mlflow_checkout / "drift" / "drift.json").read_text())["state"] == "no_champion"

    dvc(mlflow_checkout, "init", "-q", capture=True)
    write_version(mlflow_checkout / "data", {"old": 16})
    tags = {
        "dynamicid.dataset_version": "faces-v1",
        "dynamicid.dataset_md5": hash_of(mlflow_checkout, "data/faces"),
        "dynamicid.output.data/processed": hash_of(mlflow_checkout, "data/processed"),
    }
    client = open_registry(mlflow_checkout)
    client.create_registered_model("dynamicid")
    client.create_model_version("dynamicid", mlflow_checkout.as_uri(), tags=tags)
    client.create_model_version("dynamicid", mlflow_checkout.as_uri())
    client.set_registered_model_alias("dynamicid", "champion", "1")
    begin = time.time()
    same = run(params, mlflow_checkout, mlflow_checkout / "drift")
    (recorded,) = client.search_runs([client.experiment_id()], filter_string="tags.`dynamicid.stage` = 'drift'")
    assert recorded.info.start_time / 1000 == pytest.approx(begin, abs=1), "not only the recording of the result"
    assert (same.state, same.champion, same.reference_version) == ("ok", "1", "faces-v1")
    assert same.photos["added"] == 0
    with pytest.raises(UserError, match=r"models:/dynamicid/2: its tags have no hash of data/faces"):
        run(params, mlflow_checkout, mlflow_checkout / "drift", "models:/dynamicid/2")

    # The champion's sample is kept: its data is not brought again, not even when no cache has it.
    shutil.rmtree(mlflow_checkout / ".dvc" / "cache")
    again = run(params, mlflow_checkout, mlflow_checkout / "drift")
    assert (again.findings, again.photos) == (same.findings, same.photos)
    shutil.rmtree(mlflow_checkout / "data" / "faces")
    shutil.rmtree(mlflow_checkout / "data" / "processed")
    write_version(mlflow_checkout / "data", {"old": 4, "dark": 16}, brightness=0.1, changed="dark")
    (mlflow_checkout / "params.yaml").write_text((project / "profiles" / "tiny.yaml").read_text())
    done = dynamicid("drift", "--set", *SMALL, cwd=mlflow_checkout, code=1)
    assert "drift against faces-v1 of champion v1: brightness " in done.stderr
    assert "see reports/drift/index.html" in done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((mlflow_checkout / "reports" / "drift" / "drift.json").read_text())
    assert (printed["state"], printed["photos"]["added"]) == ("stop", 96)
    assert "champion v1" in (mlflow_checkout / "reports" / "drift" / "index.html").read_text()

    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    recorded = client.search_runs([experiment], filter_string="tags.`dynamicid.stage` = 'drift'")
    assert [one.data.tags["dynamicid.drift"] for one in recorded] == ["stop", "ok", "ok"]
    assert recorded[0].data.metrics["drift.brightness"] > params.drift.limits["brightness"].stop


def test_a_kept_sample_is_the_same_and_a_damaged_one_is_measured_again(tmp_path: Path, write_version: Any) -> None:
    write_version(tmp_path / "data", {"some": 5}, rejected=0.3)
    faces, processed = tmp_path / "data" / "faces", tmp_path / "data" / "processed"
    objects = {"faces": "a.dir", "processed": "b.dir"}
    sample = read_sample(faces, processed, 20)
    assert kept_sample(tmp_path, objects, 20) is None
    keep_sample(tmp_path, objects, 20, sample)
    kept = kept_sample(tmp_path, objects, 20)
    assert kept is not None
    for one, other in ((sample, kept), (sample.rows(np.arange(3)), kept.rows(np.arange(3)))):
        for name in ("image_ids", "person", "embeddings"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("numbers", "words"):
            for key, values in getattr(one, name).items():
                np.testing.assert_array_equal(values, getattr(other, name)[key])
    assert kept.photos == sample.photos == 30
    assert kept_sample(tmp_path, objects, 10) is None
    assert kept_sample(tmp_path, {**objects, "faces": "c.dir"}, 20) is None
    (file,) = (tmp_path / ".dynamicid" / "drift").glob("*.parquet")
    found = rows_in(file, Subject(frozenset({"some-1"}), frozenset()))
    assert found is not None
    assert found.rows, "`forget` finds a person in it"
    file.write_bytes(file.read_bytes()[:200])
    assert kept_sample(tmp_path, objects, 20) is None

"""A registered version lists its origins, and an earlier one is restored with a clean DVC status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.lineage import lineage_of
from pipelines.registry.origins import origins_of, versions_from
from pipelines.registry.registry import MadeFrom, find_version, made_from, open_registry
from pipelines.registry.reproduce import reproduce
from pipelines.versions.dvc import dvc
from tests.processes import dynamicid, git


def test_an_earlier_version_is_restored_with_a_clean_status(registered: Any, tmp_path: Path) -> None:
    root: Path = registered.root
    assert (root / "data/faces/quality.txt").read_text() == "0.4"
    before = dvc(root, "status", "--json", capture=True).stdout
    target = tmp_path / "first"
    done = reproduce(root, "models:/dynamicid/1", target)
    assert done.changed == {}
    assert done.dataset_version == "faces-v1"
    assert (target / "data/faces/quality.txt").read_text() == "0.5"
    assert json.loads((target / "models/adapter/config.json").read_text())["quality"] == 0.5
    status = dvc(target, "status", capture=True)
    assert "up to date" in status.stdout
    repro = dvc(target, "repro", capture=True)
    assert "Running stage" not in repro.stdout
    assert (root / "data/faces/quality.txt").read_text() == "0.4", "the checkout itself is left as it was"
    assert dvc(root, "status", "--json", capture=True).stdout == before


def test_lineage_names_the_origins_of_a_version(registered: Any) -> None:
    root: Path = registered.root
    found = origins_of(root, "models:/dynamicid/1")
    assert found.dataset_version == "faces-v1"
    assert found.git_commit == git(root, "rev-parse", "HEAD").strip()
    assert found.evaluation_set == "e" * 64
    assert found.airflow_run_id == "dynamicid_train/manual__1"
    assert set(found.stages) >= {"preprocess", "train_imr", "evaluate"}
    assert found.stages["evaluate"].run_id is not None
    assert found.outputs["data/processed"].endswith(".dir")
    assert found.decisions[0]["decision"] == "promoted"
    second = origins_of(root, "models:/dynamicid/2")
    assert second.stages["evaluate"].lock_hash == lineage_of(root, "evaluate").lock_hash
    assert second.stages["evaluate"].lock_hash != found.stages["evaluate"].lock_hash
    assert second.airflow_run_id is None


def test_the_tags_of_a_version_fit_on_a_screen_and_those_of_earlier_releases_are_read(registered: Any) -> None:
    """MLflow's page of a version shows every tag; there was one for each hash and licence."""
    version = find_version(open_registry(registered.root), "models:/dynamicid/1")
    assert len(version.tags) <= 14, sorted(version.tags)
    made = made_from(version.tags)
    apart = {
        **{f"dynamicid.lock_hash.{name}": digest for name, digest in made.stages.items()},
        **{f"dynamicid.output.{path}": digest for path, digest in made.outputs.items()},
        **{f"dynamicid.licence.{name}": licence for name, licence in made.networks.items()},
        "dynamicid.lock_hash": made.stages["evaluate"],
    }
    assert made_from(apart) == made
    assert made_from({}) == MadeFrom()


def test_versions_are_found_by_their_origin(registered: Any) -> None:
    root: Path = registered.root
    commit = str(origins_of(root, "models:/dynamicid/1").git_commit)
    assert versions_from(root, "dynamicid", "faces-v2") == ["models:/dynamicid/2"]
    assert versions_from(root, "dynamicid", commit[:8]) == ["models:/dynamicid/1", "models:/dynamicid/2"]
    assert versions_from(root, "dynamicid", "dynamicid_train/manual__1") == ["models:/dynamicid/1"]
    assert versions_from(root, "dynamicid", "faces-v9") == []
    first = origins_of(root, "models:/dynamicid/1")
    for digest in (first.outputs["models/adapter"], first.stages["preprocess"].lock_hash):
        assert versions_from(root, "dynamicid", digest) == ["models:/dynamicid/1"]
    with pytest.raises(UserError, match="expected models:/"):
        versions_from(root, "dynamicid", "3")


def test_the_command_prints_it(registered: Any) -> None:
    done = dynamicid("lineage", "models:/dynamicid/1", cwd=registered.root)
    for word in ("faces-v1", "stage evaluate", "dynamicid_train/manual__1", "e" * 64, "promoted by gates"):
        assert word in done.stderr, word


def test_a_failed_reproduction_is_named_and_leaves_nothing(registered: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it exists"):
        reproduce(registered.root, "models:/dynamicid/1", tmp_path)
    with pytest.raises(UserError, match="there are v1, v2"):
        reproduce(registered.root, "models:/dynamicid/7", tmp_path / "new")
    snapshot = origins_of(registered.root, "models:/dynamicid/1").snapshot
    tag = f"refs/tags/{snapshot}"
    commit = git(registered.root, "rev-parse", tag).strip()
    git(registered.root, "update-ref", "-d", tag)
    try:
        with pytest.raises(
            StageFailed, match=f"{snapshot}: the snapshot of this version is neither here nor at origin"
        ):
            reproduce(registered.root, "models:/dynamicid/1", tmp_path / "new")
    finally:
        git(registered.root, "update-ref", tag, commit)
    assert not (tmp_path / "new").exists()

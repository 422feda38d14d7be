"""A person is forgotten while the servers run: no byte of their pictures stays, and everybody else's data does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipelines.operations.forgetting.windows import Windows
from tests.processes import dynamicid

pytestmark = [pytest.mark.stack, pytest.mark.timeout(7200)]


def _pictures(workspace: Path, wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """Yield people's pictures as they came and as they were processed."""
    for file in sorted(workspace.glob("data/*/*.parquet")):
        columns = pq.read_schema(file).names
        if {"identity", "image"} <= set(columns):
            for row in pq.read_table(file, columns=["identity", "image"]).to_pylist():
                if row["image"] and wanted(row["identity"]):
                    yield row["image"]


@pytest.fixture(scope="module")
def trained(team) -> Path:
    """The workspace of a training that new photos started: it holds dataset, processed photos and report."""
    earlier = {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    team.ingested("rights", identities=8)
    run = team.new_run("dynamicid_train", "asset_triggered", earlier)
    assert team.airflow.wait("dynamicid_train", run, 2400) == "success"
    return team.workspace("dynamicid_train", run)


def test_a_person_is_forgotten_while_the_servers_run(team, trained: Path) -> None:
    table = pq.read_table(trained / "data" / "processed", columns=["identity", "split"]).to_pydict()
    held_out = sorted({name for name, split in zip(*table.values(), strict=True) if split == "test"})
    anna, bert = held_out[0], next(name for name in table["identity"] if name not in held_out)
    theirs, others = list(_pictures(trained, anna.__eq__)), list(_pictures(trained, anna.__ne__))
    windows, same = Windows(theirs, others), Windows(_pictures(trained, bert.__eq__), theirs)
    out = team.home.parent / "handed over"
    for folder, *chosen in (("all",), ("bert", "--identity", bert)):
        dynamicid("export", "--layout", "variface", "--out", out / folder, *chosen, cwd=trained, env=team.environment())
    places = [team.home.parent, team.state]
    before = windows.files_with(places)
    for place in (".dvc/cache", "/_done/", "data/processed", "handed over/all"):
        assert any(place in file for file in before), place

    champion = team.client().get_model_version_by_alias("dynamicid", "champion").version
    report = json.loads(team.cli("forget", "--identity", anna, "--delete-copies", "--delete-artefacts"))
    assert report["remaining"] == report["beyond"] == []
    assert windows.files_with(places) == []
    assert same.files_with([out / "bert"])
    assert any("/_done/" in file for file in same.files_with([team.home])), "other people's photos stay"
    assert not trained.exists(), "workspaces that hold the person are deleted whole"
    assert team.client().get_model_version_by_alias("dynamicid", "champion").version == champion
    assert team.pids()

    asked = json.loads(team.cli("subject", anna, "--json"))
    assert asked["photos"] == []
    repeated = dynamicid("forget", "--identity", anna, cwd=team.home, env=team.environment())
    assert "nothing is left to forget" in repeated.stderr


def test_the_person_does_not_come_back_through_the_inbox(team, trained: Path) -> None:
    """New people who arrive afterwards are trained on, and the servers' DAGs run as before."""
    _, version = team.ingested("afterwards", identities=2)
    assert version in team.cli("dataset", "list")

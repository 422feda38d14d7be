"""A checkout that was moved or copied keeps its artefacts beside it, old and new ones."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from pipelines.core.errors import StageFailed
from pipelines.operations.backup.backup import make_backup
from pipelines.operations.backup.locations import Addresses, find_locations
from pipelines.operations.backup.stack_restore import restore_anywhere
from pipelines.registry.registry import open_registry
from pipelines.registry.relocation import artefacts_elsewhere
from pipelines.registry.settings import database
from tests.processes import git


def log(root: Path, name: str) -> str:
    """Log a file and a model version as the program does; return the run."""
    import mlflow

    client = open_registry(root)
    (root / name).write_text(name)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(root / name))
    if not client.search_registered_models("name = 'dynamicid'"):
        client.create_registered_model("dynamicid")
    client.create_model_version("dynamicid", run.info.artifact_uri, run_id=run.info.run_id)
    return run.info.run_id


def read(root: Path, run_id: str, name: str) -> str:
    import mlflow

    open_registry(root)
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name)).read_text()


def default(root: Path) -> str:
    """Return where MLflow keeps the artefacts of its own first experiment."""
    return (root / "mlruns" / "0").as_uri()


def copied(root: Path, new: Path) -> None:
    shutil.copytree(root, new)


def moved(root: Path, new: Path) -> None:
    root.rename(new)


@pytest.mark.parametrize("way", [moved, copied])
def test_old_and_new_artefacts_are_in_the_new_place(
    mlflow_checkout: Path, tmp_path: Path, way: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    first = log(mlflow_checkout, "first.txt")
    assert (mlflow_checkout / "mlartifacts" / first).is_dir()
    with closing(sqlite3.connect(database(mlflow_checkout))) as tables, tables:
        tables.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'Default'", (default(mlflow_checkout),)
        )
    new = tmp_path / "new façes"
    way(mlflow_checkout, new)
    second = log(new, "second.txt")
    assert f"was at {mlflow_checkout}" in capsys.readouterr().err
    assert (new / "mlartifacts" / second).is_dir()
    assert not (mlflow_checkout / "mlartifacts" / second).exists()
    assert artefacts_elsewhere(database(new), new / "mlartifacts") == []
    if way is copied:
        assert read(mlflow_checkout, first, "first.txt") == "first.txt", "the other checkout is left as it was"
        shutil.rmtree(mlflow_checkout)
    assert read(new, first, "first.txt") == "first.txt"
    sources = {version.source for version in open_registry(new).search_model_versions("name = 'dynamicid'")}
    assert all(str(mlflow_checkout) not in source for source in sources)
    assert "was at" not in capsys.readouterr().err, "printed once"
    assert open_registry(new).get_experiment("0").artifact_location == default(new), "of MLflow's first one, too"


@pytest.mark.parametrize("way", [moved, copied])
def test_traces_of_drawn_pictures_come_along(
    mlflow_checkout: Path, tmp_path: Path, way: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    open_registry(mlflow_checkout)
    with mlflow.start_span("draw a picture") as span:
        mlflow.set_trace_tag(span.trace_id, "asked", str(mlflow_checkout))
    new = tmp_path / "new façes"
    way(mlflow_checkout, new)
    client = open_registry(new)
    shutil.rmtree(mlflow_checkout, ignore_errors=True)
    trace = client.get_trace(span.trace_id)
    assert [one.name for one in trace.data.spans] == ["draw a picture"]
    assert trace.info.tags["mlflow.artifactLocation"].startswith((new / "mlartifacts").as_uri())
    assert trace.info.tags["asked"] == str(mlflow_checkout), "a text of somebody's own is no address"
    assert artefacts_elsewhere(database(new), new / "mlartifacts") == []


def test_what_earlier_releases_wrote_at_the_old_place_is_brought_here_and_backed_up(
    mlflow_checkout: Path, tmp_path: Path
) -> None:
    first, stray = log(mlflow_checkout, "first.txt"), log(mlflow_checkout, "stray.txt")
    new = tmp_path / "new"
    shutil.copytree(mlflow_checkout, new)
    shutil.rmtree(new / "mlartifacts" / stray)  # as if it had been logged from the new place
    with pytest.raises(StageFailed, match=rf"3 folders of artefacts outside of .*, such as {mlflow_checkout}/mlart"):
        make_backup(find_locations(new, Addresses()), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert read(new, stray, "stray.txt") == "stray.txt"
    assert (new / "mlartifacts" / stray / "artifacts" / "stray.txt").is_file()
    manifest = make_backup(find_locations(new, Addresses()), tmp_path / "backup")
    assert {f"artefacts/{run}/artifacts/{name}.txt" for run, name in ((first, "first"), (stray, "stray"))} <= set(
        manifest.files
    )


@pytest.mark.parametrize("folder", [None, "disk #2"])
def test_a_backup_is_restored_at_another_path(mlflow_checkout: Path, tmp_path: Path, folder: str | None) -> None:
    run = log(mlflow_checkout, "first.txt")
    before = rows(database(mlflow_checkout))
    make_backup(find_locations(mlflow_checkout, Addresses()), tmp_path / "backup")
    shutil.rmtree(mlflow_checkout)
    new = tmp_path / "new façes"
    new.mkdir()
    git(new, "init", "-q")
    named = Addresses(artefacts=None if folder is None else tmp_path / folder)
    for _ in range(2):  # as after a kill
        restore_anywhere(tmp_path / "backup", new, named)
    here = named.artefacts or new / "mlartifacts"
    assert (here / run / "artifacts" / "first.txt").is_file()
    old = str(mlflow_checkout / "mlartifacts")
    moved = [[cell.replace(old, quote(str(here)) if "://" in cell else str(here)) for cell in row] for row in before]
    assert rows(database(new)) == moved
    assert read(new, run, "first.txt") == "first.txt"
    assert log(new, "second.txt") in {place.name for place in here.iterdir()}
    assert artefacts_elsewhere(database(new), here) == []


def rows(file: Path) -> list[list[str]]:
    """Return every row of every table."""
    with closing(sqlite3.connect(file)) as opened:
        tables = [name for (name,) in opened.execute("select name from sqlite_master where type = 'table'")]
        return [[name, *map(str, row)] for name in tables for row in opened.execute(f'select * from "{name}"')]


def test_a_folder_that_somebody_chose_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
        monkeypatch.delenv(name, raising=False)
    chosen, root = tmp_path / "disk" / "mlartifacts", tmp_path / "root"
    chosen.mkdir(parents=True)
    root.mkdir()
    MlflowClient(f"sqlite:///{root}/mlflow.db").create_experiment("dynamicid", artifact_location=chosen.as_uri())
    run = log(root, "a.txt")
    assert (chosen / run).is_dir()
    assert artefacts_elsewhere(database(root), chosen) == []

"""A backup is complete and checked, and restoring it brings everything back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.operations.backup import restore as restore_module
from pipelines.operations.backup.backup import make_backup, read_backup, remove_older
from pipelines.operations.backup.databases import dump, load
from pipelines.operations.backup.locations import Locations
from pipelines.operations.backup.private_postgres import private_server
from pipelines.operations.backup.restore import Restored, restore_backup
from pipelines.operations.stack import postgres
from pipelines.registry.settings import sqlite_uri
from pipelines.registry.snapshot import take_snapshot
from pipelines.versions.dataset_version import make_version
from tests.pipelines.operations.stacks import needs_postgres, open_folder
from tests.pipelines.photos import dataset_row, write_shards
from tests.processes import commit_all, dvc, git, run


def table(file: Path, *rows: str) -> str:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("create table if not exists t (word text)")
        connection.execute("delete from t")
        connection.executemany("insert into t values (?)", [(row,) for row in rows])
        connection.commit()
    return sqlite_uri(file)


def words(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("select word from t order by word")]


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return filled(tmp_path / "checkout")


def filled(root: Path) -> Locations:
    """Make a checkout with a tag, two databases and an artefact."""
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "commit", "-q", "--allow-empty", "-m", "start")
    git(root, "tag", "faces-v1")
    (root / "mlartifacts" / "1").mkdir(parents=True)
    (root / "mlartifacts" / "1" / "adapter.safetensors").write_bytes(b"weights")
    return Locations(
        root=root,
        ledger=table(root / "mlflow.db", "v1", "v2"),
        artefacts=root / "mlartifacts",
        airflow=table(root / "airflow.db", "run"),
    )


def restore(folder: Path, locations: Locations, *, force: bool = False) -> Restored:
    return restore_backup(folder, read_backup(folder), locations, force=force)


def test_everything_lost_comes_back(locations: Locations, tmp_path: Path) -> None:
    git(locations.root, "tag", "model-1")
    with closing(sqlite3.connect(locations.root / "mlflow.db")) as other:
        other.execute("begin immediate")  # a write during the copy
        other.execute("insert into t values ('half')")
        make_backup(locations, tmp_path / "copy")
        other.rollback()
    (locations.root / "mlflow.db").unlink()
    (locations.root / "airflow.db").unlink()
    shutil.rmtree(locations.root / "mlartifacts")
    git(locations.root, "tag", "-d", "model-1")
    done = restore(tmp_path / "copy", locations).done
    assert words(locations.root / "mlflow.db") == ["v1", "v2"]
    assert words(locations.root / "airflow.db") == ["run"]
    assert (locations.root / "mlartifacts" / "1" / "adapter.safetensors").read_bytes() == b"weights"
    assert git(locations.root, "tag").split() == ["faces-v1", "model-1"]
    assert "1 tag or saved run" in done


@pytest.mark.parametrize(
    "name",
    [
        *("C# faces", "50%20off", "a?mode=ro", "user:pw@host", "a b'c\"d", "$HOME", "*[x]?", "--rf", ";&|", "a,b=c"),
        *("名前 \u00f1", "名前 n\u0303", "n" * 180, "%(ENV_HOME)s", "\\", "a;uri=true&b"),
    ],
)
def test_a_backup_holds_what_a_checkout_with_an_odd_name_holds(tmp_path: Path, name: str) -> None:
    locations = filled(tmp_path / name)
    target = tmp_path / f"{name[:80]} copy"
    manifest = make_backup(locations, target)
    assert manifest.rows == {"mlflow": {"t": 2}, "airflow": {"t": 1}}
    assert "the database of mlflow (2 rows in 1 table)" in manifest.contents()
    assert words(target / "mlflow.sqlite") == ["v1", "v2"]
    table(locations.root / "mlflow.db", "newer")
    (locations.root / "mlartifacts" / "1" / "adapter.safetensors").unlink()
    restore(target, locations, force=True)
    assert words(locations.root / "mlflow.db") == ["v1", "v2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, target.name]), "nothing beside them"


def test_a_database_with_a_write_ahead_log_is_copied_to_one_file_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "airflow.db"
    (tmp_path / "copy").mkdir()
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("pragma journal_mode=wal")
        writer.execute("create table t (x)")
        writer.execute("insert into t values (1)")
        writer.commit()
        assert dump(sqlite_uri(file), tmp_path / "copy" / "airflow") == {"t": 1}
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["airflow.sqlite"]


def test_of_backups_by_time_the_newest_stay(tmp_path: Path) -> None:
    for name in ("20260101T010000Z", "20260102T010000Z", "20260103T010000Z", "by hand", ".20260104T010000Z.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "20260105T010000Z").mkdir()  # none of ours
    assert [(path.name, size) for path, size in remove_older(tmp_path, 2)] == [
        ("20260101T010000Z", 2),
        (".20260104T010000Z.part", 2),
    ]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["20260102T010000Z", "20260103T010000Z", "20260105T010000Z", "by hand"]


def test_versions_whose_data_no_remote_has_are_named(
    mlflow_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = mlflow_checkout
    monkeypatch.chdir(root)
    dvc(root, "init", "-q")
    commit_all(root, "start")

    def shown(name: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["backup", "--out", str(tmp_path / name)])
        assert ended.value.code == 0
        return capsys.readouterr().err

    assert "data of" not in shown("nothing"), "there are no versions"
    write_shards(root / "data" / "faces", DATASET_SCHEMA, [[dataset_row("a.jpg", b"a", "anna")]])
    make_version(root, "data/faces", "first")
    (root / "model.bin").write_bytes(b"weights")
    (root / "dvc.yaml").write_text("stages: {train: {cmd: 'true', outs: [model.bin]}}\n")
    dvc(root, "commit", "-q", "--force")
    model = take_snapshot(root, "a model")
    only_here = shown("no_remote")
    assert f"the data of faces-v1, {model} is only here: `dvc remote add --default NAME PLACE`, then" in only_here
    dvc(root, "remote", "add", "--default", "team", str(tmp_path / "team"))
    assert f"no DVC remote has all data of faces-v1, {model}: `dvc push --all-tags` copies it" in shown("not_pushed")
    dvc(root, "push", "-q", "data/faces.dvc")
    assert f"no DVC remote has all data of {model}:" in shown("half_pushed")
    dvc(root, "push", "-q", "--all-tags")
    assert "data of" not in shown("copied")
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "team")
    assert "data of" not in shown("lost"), "nobody can push what is nowhere"


def test_a_database_without_tables_is_no_backup(locations: Locations, tmp_path: Path) -> None:
    (locations.root / "mlflow.db").unlink()
    sqlite3.connect(locations.root / "mlflow.db").close()
    with pytest.raises(UserError, match="this database has no tables, so there is nothing to copy"):
        make_backup(locations, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_with_fewer_rows_than_it_says_is_not_restored(locations: Locations, tmp_path: Path) -> None:
    manifest = make_backup(locations, tmp_path / "copy")
    more = replace(manifest, rows={"mlflow": {"t": 3}})
    with pytest.raises(StageFailed, match=r"mlflow\.db: the copy is not complete: table t: 2 rows, expected 3 rows"):
        restore_backup(tmp_path / "copy", more, locations, force=True)
    table(locations.root / "mlflow.db", "newer")
    with pytest.raises(StageFailed, match="table u: no such table, expected 1 row"):
        restore_backup(tmp_path / "copy", replace(manifest, rows={"mlflow": {"u": 1}}), locations, force=True)
    assert words(locations.root / "mlflow.db") == ["newer"]


def test_a_damaged_backup_changes_nothing(locations: Locations, tmp_path: Path) -> None:
    make_backup(locations, tmp_path / "copy")
    (tmp_path / "copy" / "artefacts" / "1" / "adapter.safetensors").write_bytes(b"Weights")
    (tmp_path / "copy" / "airflow.sqlite").unlink()
    table(locations.root / "mlflow.db", "newer")
    with pytest.raises(UserError, match=r"airflow\.sqlite is missing; artefacts/1/adapter\.safetensors is damaged"):
        restore(tmp_path / "copy", locations, force=True)
    assert words(locations.root / "mlflow.db") == ["newer"]


def test_databases_with_data_are_replaced_by_force_only(locations: Locations, tmp_path: Path) -> None:
    make_backup(locations, tmp_path / "copy")
    table(locations.root / "mlflow.db", "newer")
    with pytest.raises(UserError, match="databases of mlflow and airflow are not empty; --force"):
        restore(tmp_path / "copy", locations)
    assert words(locations.root / "mlflow.db") == ["newer"]
    restore(tmp_path / "copy", locations, force=True)
    assert words(locations.root / "mlflow.db") == ["v1", "v2"]


@pytest.mark.parametrize("loaded", [0, 1, 2])
def test_a_restore_that_was_killed_is_repeated_without_force(
    locations: Locations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: int
) -> None:
    git(locations.root, "tag", "model-1")
    make_backup(locations, tmp_path / "copy")
    (locations.root / "mlflow.db").unlink()
    (locations.root / "airflow.db").unlink()
    shutil.rmtree(locations.root / "mlartifacts")
    git(locations.root, "tag", "-d", "model-1")
    child = os.fork()
    if child == 0:
        left = [loaded]

        def load_some(*arguments: Any) -> None:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            load(*arguments)
            if not left[0]:
                os._exit(9)

        try:
            monkeypatch.setattr(restore_module, "load", load_some)
            restore(tmp_path / "copy", locations)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    restore(tmp_path / "copy", locations)
    assert words(locations.root / "mlflow.db") == ["v1", "v2"]
    assert words(locations.root / "airflow.db") == ["run"]
    assert git(locations.root, "tag").split() == ["faces-v1", "model-1"]


def test_other_artefacts_are_replaced_by_force_only(locations: Locations, tmp_path: Path) -> None:
    make_backup(locations, tmp_path / "copy")
    file = locations.root / "mlartifacts" / "1" / "adapter.safetensors"
    (locations.root / "mlflow.db").unlink()
    (locations.root / "airflow.db").unlink()
    file.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"not as in the backup: 1 file, .* 1/adapter\.safetensors; --force"):
        restore(tmp_path / "copy", locations)
    assert (file.read_bytes(), (locations.root / "mlflow.db").exists()) == (b"other weights", False)
    restore(tmp_path / "copy", locations, force=True)
    assert file.read_bytes() == b"weights"


def test_a_backup_is_never_overwritten_and_never_incomplete(locations: Locations, tmp_path: Path) -> None:
    make_backup(locations, tmp_path / "copy")
    with pytest.raises(UserError, match="it exists"):
        make_backup(locations, tmp_path / "copy")
    lost = Locations(root=locations.root, ledger=f"sqlite:///{tmp_path / 'nowhere.db'}")
    with pytest.raises(UserError, match="no such database"):
        make_backup(lost, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkout", "copy"]
    with pytest.raises(UserError, match="expected a folder with manifest"):
        read_backup(locations.root)


@pytest.fixture
def server(project: Path) -> Iterator[dict[str, str]]:
    """Yield libpq's environment for a PostgreSQL server with the databases `airflow` and `other`."""
    with open_folder() as folder:
        own = postgres.configure(folder)
        postgres.initialise(own, project / "docker" / "postgres" / "postgresql.conf", "password")
        with private_server(own) as environment:
            environment |= {"PGUSER": "postgres"}
            for database in ("airflow", "other"):
                run("createdb", database, env=environment)
            yield environment


@needs_postgres
def test_postgresql_is_dumped_and_brought_back(locations: Locations, tmp_path: Path, server: dict[str, str]) -> None:
    def sql(text: str, database: str) -> str:
        return run("psql", "-Atqc", text, database, env=server).stdout.strip()

    sql("create table t (word text primary key); insert into t values ('run')", "airflow")
    uri = f"postgresql://postgres@/airflow?host={server['PGHOST']}&port={server['PGPORT']}"
    assert dump(uri, tmp_path / "airflow") == {"public.t": 1}
    file = tmp_path / "airflow.pgdump"
    with pytest.raises(UserError, match="another kind of database"):
        load(file, str(locations.ledger))
    # As a newer schema could: add a table that refers to a table in the copy.
    sql("update t set word = 'lost'; create table later (word text references t)", "airflow")
    for database in ("airflow", "other"):
        load(file, uri.replace("/airflow", f"/{database}"))
        assert sql("select word from t", database) == "run"
        assert sql("select tablename from pg_tables where schemaname = 'public'", database) == "t"
    with pytest.raises(StageFailed, match="pg_restore"):
        load(tmp_path / "nothing.pgdump", uri)
    assert sql("select word from t", "airflow") == "run"


@needs_postgres
def test_mlflow_in_postgresql_names_the_artefacts_where_they_are_restored(
    locations: Locations, tmp_path: Path, server: dict[str, str]
) -> None:
    def sql(text: str) -> str:
        return run("psql", "-Atqc", text, "other", env=server).stdout.strip()

    old = locations.root / "mlartifacts"
    addresses = ("s3://bucket/1", f"{old.as_uri()}/1", old.as_uri(), f"{old.as_uri()}2/1", "mlflow-artifacts:/1")
    rows = ", ".join(f"('{address}')" for address in addresses)
    sql(f"create table runs (artifact_uri varchar(200)); insert into runs values {rows}")
    uri = f"postgresql://postgres@/other?host={server['PGHOST']}&port={server['PGPORT']}"
    make_backup(replace(locations, ledger=uri), tmp_path / "copy")
    new = replace(locations, ledger=uri, artefacts=tmp_path / "50% new", airflow=None)
    restore(tmp_path / "copy", new, force=True)
    moved = [(tmp_path / "50% new").as_uri() + tail for tail in ("", "/1")]
    kept = [address for address in addresses if address not in (old.as_uri(), f"{old.as_uri()}/1")]
    assert sorted(sql("select artifact_uri from runs").split()) == sorted([*kept, *moved])

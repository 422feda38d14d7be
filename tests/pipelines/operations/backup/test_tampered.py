"""A backup that somebody changed, with hashes that fit: what no `dynamicid backup` writes is refused."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.commands.backup import restore as restore_command
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import sha256
from pipelines.operations.backup import databases
from pipelines.operations.backup.backup import make_backup, read_backup
from pipelines.operations.backup.locations import Locations
from pipelines.operations.stack.credentials import FILE, credentials, read_credentials
from tests.pipelines.operations.backup.test_backup import filled, restore, server, table, words
from tests.pipelines.operations.stacks import needs_postgres
from tests.processes import git, run

__all__ = ["server"]


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return filled(tmp_path / "checkout")


@pytest.fixture
def copy(locations: Locations, tmp_path: Path) -> Path:
    make_backup(locations, tmp_path / "copy")
    return tmp_path / "copy"


def sign(copy: Path) -> None:
    """Write a manifest with the hashes of all files, links included, as whoever changed them would."""
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    paths = [path for path in copy.rglob("*") if path.is_file() and path != file]
    manifest["files"] = {path.relative_to(copy).as_posix(): sha256(path) for path in paths}
    file.write_text(json.dumps(manifest))


def add(copy: Path, name: str, content: bytes = b"x") -> None:
    file = copy / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    sign(copy)


def refused(copy: Path, locations: Locations, match: str) -> None:
    """Check that the restore is refused with one line, and changes nothing in the checkout."""
    table(Path(locations.root / "mlflow.db"), "newer")
    before = sorted(path for path in locations.root.rglob("*") if ".git/objects" not in str(path))
    with pytest.raises(UserError, match=match) as error:
        restore(copy, locations, force=True)
    assert "\n" not in str(error.value)
    assert words(locations.root / "mlflow.db") == ["newer"]
    assert sorted(path for path in locations.root.rglob("*") if ".git/objects" not in str(path)) == before


@pytest.mark.parametrize(
    "line",
    [
        *("LD_PRELOAD=/tmp/evil.so", "PYTHONPATH=/tmp", "GIT_SSH_COMMAND=sh", "PGHOST=elsewhere", "BASH_ENV=/tmp/x"),
        *(
            "POSTGRES_PASSWORD=$(touch /tmp/ran)00000000",
            'MLFLOW_DB_PASSWORD=aaaaaaaaaaaaaaaa",LD_PRELOAD="/tmp/evil.so',
        ),
        *("AIRFLOW_ADMIN_PASSWORD=`touch /tmp/ran`000000", "S3_ACCESS_KEY=short", "S3_ACCESS_KEY=%(ENV_HOME)s00000000"),
    ],
)
def test_credentials_hold_only_what_the_stack_generates(tmp_path: Path, line: str) -> None:
    credentials(tmp_path)
    file = tmp_path / FILE
    name = line.partition("=")[0]
    kept = [one for one in file.read_text().splitlines() if not one.startswith(f"{name}=")]
    file.write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(UserError, match=rf"line {len(kept) + 1}: .*{name}") as error:
        read_credentials(file)
    assert line not in str(error.value), "no message repeats what may be a password"
    with pytest.raises(UserError, match=name):
        credentials(tmp_path)


def test_a_line_of_the_credentials_reaches_no_program(copy: Path, locations: Locations, tmp_path: Path) -> None:
    credentials(tmp_path / "state")
    lines = (tmp_path / "state" / FILE).read_text() + "LD_PRELOAD=/tmp/evil.so\n"
    add(copy, FILE, lines.encode())
    refused(copy, locations, "LD_PRELOAD")


def test_credentials_without_a_password_that_the_restore_needs_are_refused(copy: Path, locations: Locations) -> None:
    add(copy, FILE, b"S3_ACCESS_KEY=0123456789abcdef\n")
    refused(copy, locations, "POSTGRES_PASSWORD, .* is missing")


@pytest.mark.parametrize(
    "name",
    [
        *("artefacts/.git/config", "artefacts/1/.GIT/hooks/post-checkout", "artefacts/1/HEAD", "evil.sh"),
        *("sub/mlflow.sqlite", "other.sqlite", "hooks/post-checkout", "artefacts/1/a\nb", "artefacts/1/a\x1b[2J"),
    ],
)
def test_a_name_that_no_backup_has_is_refused(copy: Path, locations: Locations, name: str) -> None:
    add(copy, name)
    refused(copy, locations, "no file of a backup")


@pytest.mark.parametrize("name", ["HEAD", "\udcff.txt", "a\nb"])
def test_what_no_restore_accepts_is_no_backup(locations: Locations, tmp_path: Path, name: str) -> None:
    (locations.root / "mlartifacts" / "1" / name).write_text("logged by somebody")
    with pytest.raises(StageFailed, match="no restore accepts it; rename it"):
        make_backup(locations, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_artefact_is_never_taken_for_a_database(locations: Locations, tmp_path: Path) -> None:
    table(Path(locations.artefacts or "") / "1" / "mlflow.sqlite", "an artefact")
    manifest = make_backup(locations, tmp_path / "copy")
    assert manifest.databases() == {"mlflow": "mlflow.sqlite", "airflow": "airflow.sqlite"}
    (locations.root / "mlflow.db").unlink()
    restore(tmp_path / "copy", locations, force=True)
    assert words(locations.root / "mlflow.db") == ["v1", "v2"]


def link_folder(copy: Path, secret: Path) -> None:
    (copy / "artefacts" / "2").symlink_to(secret, target_is_directory=True)


def link_file(copy: Path, secret: Path) -> None:
    (copy / "artefacts" / "1" / "notes").symlink_to(secret / "key")


def link_artefacts(copy: Path, secret: Path) -> None:
    (copy / "artefacts").rename(copy.with_name("elsewhere"))
    (copy / "artefacts").symlink_to(secret, target_is_directory=True)


def broken_link(copy: Path, secret: Path) -> None:
    (copy / "artefacts" / "1" / "later").symlink_to(secret / "nothing")


def named_pipe(copy: Path, secret: Path) -> None:
    os.mkfifo(copy / "artefacts" / "1" / "pipe")


@pytest.mark.parametrize("change", [link_folder, link_file, link_artefacts, broken_link, named_pipe])
def test_links_and_pipes_are_refused(
    copy: Path, locations: Locations, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("private")
    change(copy, secret)
    sign(copy)
    refused(copy, locations, "neither a file nor a folder")


def bundle(copy: Path, locations: Locations, ref: str) -> None:
    """Put a commit of somebody else under the name `ref` into the backup."""
    other = copy.with_name("other")
    git(copy.parent, "clone", "-q", str(locations.root), str(other))
    git(other, "commit", "-q", "--allow-empty", "-m", "theirs")
    git(other, "update-ref", ref, "HEAD")
    git(other, "bundle", "create", "-q", str(copy / "refs.bundle"), ref, "refs/tags/faces-v1")
    sign(copy)


@pytest.mark.parametrize("ref", ["refs/replace/{head}", "refs/heads/other", "refs/stash", "refs/notes/commits"])
def test_a_bundle_brings_tags_and_saved_runs_only(copy: Path, locations: Locations, ref: str) -> None:
    name = ref.format(head=git(locations.root, "rev-parse", "HEAD").strip())
    bundle(copy, locations, name)
    refused(copy, locations, f"{name} is neither a tag nor a saved run")
    assert git(locations.root, "log", "--format=%s").split() == ["start"]


@pytest.mark.parametrize("name", ["main", "HEAD", "FETCH_HEAD", "origin/next", "next"])
def test_a_tag_does_not_take_the_place_of_a_branch(copy: Path, locations: Locations, name: str) -> None:
    bundle(copy, locations, f"refs/tags/{name}")
    git(locations.root, "tag", "-d", "faces-v1")
    git(locations.root, "update-ref", "refs/remotes/origin/next", "HEAD")
    restored = restore(copy, locations, force=True)
    assert git(locations.root, "log", "--format=%s", "main").split() == ["start"]
    assert git(locations.root, "tag").split() == ["faces-v1"]
    assert restored.left == [f"refs/tags/{name} (git would take it for the branch of this name)"]


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"[]",
            b"{",
            b'{"files": 1}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"format": 2, "files": {"a": "b"}}',
            b"null",
        ),
        b'{"format": 2, "made": "x", "artefacts": null, "files": {"mlflow.sqlite": "not a hash"}}',
    ],
)
def test_a_damaged_manifest_is_named(copy: Path, locations: Locations, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    refused(copy, locations, r"manifest\.json: damaged.*copy it again")


@pytest.mark.parametrize("name", ["mlflow.sqlite", "refs.bundle", "airflow.pgdump"])
def test_a_file_of_another_format_is_named(copy: Path, locations: Locations, name: str) -> None:
    add(copy, name, b"\\! touch /tmp/ran\n")
    refused(copy, locations, rf"{name}: not a file of its format")


@pytest.mark.parametrize("address", ["{home}", "file://{home}", "{artefacts}/../../home"])
def test_a_database_that_names_other_folders_is_refused(
    copy: Path, locations: Locations, tmp_path: Path, address: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("private")
    with closing(sqlite3.connect(copy / "mlflow.sqlite")) as connection, connection:
        connection.execute("create table runs (artifact_uri text)")
        named = address.format(home=tmp_path / "home", artefacts=locations.artefacts)
        connection.execute("insert into runs values (?)", (named,))
    sign(copy)
    refused(copy, locations, r"outside of .*mlartifacts.*home")


@needs_postgres
def test_a_database_of_a_stack_that_names_other_folders_is_emptied(
    tmp_path: Path, server: dict[str, str], locations: Locations
) -> None:
    def sql(text: str) -> str:
        return run("psql", "-Atqc", text, "airflow", env=server).stdout.strip()

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("private")
    uri = f"postgresql://postgres@/airflow?host={server['PGHOST']}&port={server['PGPORT']}"
    sql(f"create table runs (artifact_uri text); insert into runs values ('file://{tmp_path}/x/../home')")
    databases.dump(uri, tmp_path / "mlflow")
    own = [tmp_path / "mlartifacts"]
    with pytest.raises(StageFailed, match=r"mlflow\.pgdump: it names .*/home, as no backup does; .* is empty now"):
        databases.load(tmp_path / "mlflow.pgdump", uri, own=own)
    assert sql("select count(*) from pg_tables where schemaname = 'public'") == "0"
    databases.load(tmp_path / "mlflow.pgdump", uri, own=[*own, tmp_path / "home"])
    assert sql("select count(*) from runs") == "1"


@needs_postgres
def test_a_script_of_postgresql_can_start_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    """pg_restore of releases before August 2025 writes a script in which psql runs what the backup says."""

    def old_restore(address: object, name: str, *arguments: str) -> None:
        assert name == "pg_restore", "nothing is run"
        (script,) = (one.removeprefix("--file=") for one in arguments if one.startswith("--file="))
        Path(script).write_text("--\n-- PostgreSQL database dump\n--\n\n\\! touch /tmp/ran\n\\restrict x\n")

    monkeypatch.setattr(databases, "_postgres", old_restore)
    (tmp_path / "airflow.pgdump").write_bytes(b"PGDMP")
    with pytest.raises(UserError, match=r"pg_restore .* could run programs; install the newest"):
        databases.load(tmp_path / "airflow.pgdump", "postgresql://airflow@localhost/airflow")


def test_another_manifest_than_the_expected_is_refused(
    copy: Path, locations: Locations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(locations.root)
    expected = sha256(copy / "manifest.json")
    add(copy, "artefacts/1/adapter.safetensors", b"other weights")
    with pytest.raises(UserError, match=f"not {expected}: another backup, or a changed one"):
        restore_command(copy, force=True, expected=expected)
    assert (locations.root / "mlartifacts" / "1" / "adapter.safetensors").read_bytes() == b"weights"
    restore_command(
        copy, ledger=locations.ledger, airflow=locations.airflow, force=True, expected=sha256(copy / "manifest.json")
    )
    assert (locations.root / "mlartifacts" / "1" / "adapter.safetensors").read_bytes() == b"other weights"


def test_what_a_backup_writes_is_restored(copy: Path, locations: Locations) -> None:
    assert read_backup(copy).contents()
    assert restore(copy, locations, force=True).done

"""PostgreSQL of the stack: its programs, the user that it runs as (it refuses root), its data folder and databases."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.programs import run_program, wait_while

DATA_VARIABLE = "DYNAMICID_POSTGRES_DATA"
# The file in the stack's state with the path of a data folder that is outside of the state.
_DATA_NOTE = "postgres_data"
_VERSION_FILE = "PG_VERSION"
_PROGRAMS = ("initdb", "postgres", "psql", "pg_isready")
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Postgres:
    """The folder of PostgreSQL's programs, the user that it runs as, and its data folder."""

    programs: Path
    user: str
    data: Path

    def environment(self) -> dict[str, str]:
        """Return the variables of the supervisor's configuration."""
        return {
            "STACK_POSTGRES_BIN": str(self.programs),
            "STACK_POSTGRES_USER": self.user,
            "STACK_POSTGRES_DATA": str(self.data),
        }

    def user_and_group(self) -> dict[str, Any]:
        """Return the numbers `user` and `group` for its processes and files; empty unless this process runs as root."""
        if os.getuid():
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid}

    def chown(self, *paths: Path) -> None:
        """Make the user that PostgreSQL runs as the owner of files, if this process runs as root."""
        if owner := self.user_and_group():
            for path in paths:
                shutil.chown(path, **owner)


def find_programs(search: str | None = None, version: str | None = None) -> Path:
    """Return the folder of PostgreSQL's programs: Debian's newest, else the one on PATH, or only on `search` if given.

    `version` is the only major version allowed. Raises UserError naming the package to install where there is none.
    """
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name)) if search is None else []
    on_path = shutil.which("postgres", path=search)
    folders = [*reversed(versions), *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in folders:
        if all((folder / name).is_file() for name in _PROGRAMS) and version in (None, _version(folder)):
            return folder
    raise UserError(
        f"PostgreSQL{f' {version}, which made the data,' if version else ''} is missing ({', '.join(_PROGRAMS)} in one "
        f"folder): apt-get install postgresql{f'-{version}' if version else ''} (Debian, Ubuntu), "
        f"brew install postgresql@{version or 15} (macOS)"
    )


def _version(programs: Path) -> str:
    """Return the major version, in the form of a data folder's PG_VERSION."""
    output = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"(\d+)", output)
    return number[1] if number else ""


def data_folder(state: Path) -> Path:
    """Return the data folder of the stack in `state`: the one of its last start, by default in `state` itself."""
    note = state / _DATA_NOTE
    return Path(note.read_text(encoding="utf-8")) if note.is_file() else state / "postgres"


def save_data_folder(state: Path, server: Postgres) -> None:
    """Save the path of the data folder in `state`, unless it is inside `state`, which may be moved."""
    if server.data == state / "postgres":
        (state / _DATA_NOTE).unlink(missing_ok=True)
    else:
        (state / _DATA_NOTE).write_text(str(server.data), encoding="utf-8")


def configure(state: Path, *, running: bool = False) -> Postgres:
    """Return the PostgreSQL of the stack in `state`; started by root, it runs as the user postgres.

    DYNAMICID_POSTGRES_DATA names the data folder, by default that of the last start; for a `running` stack the variable
    is ignored. Raises UserError where the folder has other contents, is not writable, or has lost its data.
    """
    data = data_folder(state)
    if not running and (named := os.environ.get(DATA_VARIABLE)):
        data = Path(named).absolute()
    elif (state / _DATA_NOTE).is_file() and not (data / _VERSION_FILE).is_file():
        raise UserError(
            f"{data}: the databases of this stack were there and are missing; restore the folder, name its new path "
            f"with {DATA_VARIABLE}, or delete {state / _DATA_NOTE} to start with empty databases"
        )
    version = data / _VERSION_FILE
    programs = find_programs(version=version.read_text(encoding="utf-8").strip() if version.is_file() else None)
    if data.is_dir() and any(data.iterdir()) and not version.is_file():
        raise UserError(f"{data}: neither empty nor a data folder of PostgreSQL; name another one with {DATA_VARIABLE}")
    if os.getuid() != 0:
        return Postgres(programs, getpass.getuser(), data)
    server = Postgres(programs, "postgres", data)
    try:
        owner = server.user_and_group()
    except KeyError:
        raise UserError("PostgreSQL refuses root, and there is no user postgres; `useradd --system postgres`") from None
    data.mkdir(parents=True, exist_ok=True)
    server.chown(data)
    data.chmod(0o700)
    if subprocess.run(["test", "-w", str(data)], check=False, **owner).returncode:
        raise UserError(
            f"{data}: the user postgres cannot reach this folder (PostgreSQL refuses to run as root); open the folders "
            f"above it with `chmod o+x`, or name another with {DATA_VARIABLE}"
        )
    return server


def initialise(postgres: Postgres, configuration: Path, password: str) -> None:
    """Create the data folder unless it exists; copy the configuration into it."""
    if not (postgres.data / _VERSION_FILE).is_file():
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(password)
            file.flush()
            postgres.chown(Path(file.name))
            options = ("-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8")
            command = (postgres.programs / "initdb", "-D", postgres.data, *options, f"--pwfile={file.name}")
            run_program(f"initdb in {postgres.data}", *command, cwd="/", **postgres.user_and_group())
    # A copy, because the user that PostgreSQL runs as may not be able to read the checkout.
    target = postgres.data / "postgresql.conf"
    target.write_text(configuration.read_text(encoding="utf-8"), encoding="utf-8")
    postgres.chown(target)


def is_ready(postgres: Postgres, environment: Mapping[str, str]) -> bool:
    """Whether the server accepts connections."""
    command = [str(postgres.programs / "pg_isready"), "-q"]
    return not subprocess.run(command, env=dict(environment), capture_output=True, check=False).returncode


def wait_ready(postgres: Postgres, environment: Mapping[str, str], seconds: float) -> None:
    """Wait until the server accepts connections; raise StageFailed after `seconds`."""
    if wait_while(lambda: not is_ready(postgres, environment), seconds):
        raise StageFailed(f"PostgreSQL on port {environment['PGPORT']} is not ready after {seconds:.0f} s; see its log")


def make_databases(postgres: Postgres, script: Path, environment: Mapping[str, str]) -> None:
    """Run the SQL script that creates roles and databases, as the database's superuser."""
    as_superuser = {**environment, "PGUSER": "postgres", "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
    psql = (postgres.programs / "psql", "--no-psqlrc", "--quiet", "-d", "postgres", "-f", script)
    run_program(script.name, *psql, env=as_superuser)


def orphan_pid(data: Path) -> int | None:
    """Return the process id of the server of the data folder if it has lost its supervisor, else None.

    `postmaster.pid` may be older than its server's end, and another program may have that process id now. A server with
    a supervisor is not an orphan, whichever stack it belongs to.
    """
    import psutil

    try:
        server = psutil.Process(int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]))
        if str(data) not in server.cmdline() or server.status() == psutil.STATUS_ZOMBIE:
            return None
        parent = server.parent()
        supervised = parent is not None and "supervisor.supervisord" in parent.cmdline()
        return None if supervised else server.pid
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def end_orphan(data: Path, seconds: float = 60) -> bool:
    """End a server that has lost its supervisor; return whether there was one.

    A fast shutdown closes connections and loses nothing that was committed. Raises StageFailed where the server still
    runs after `seconds`.
    """
    pid = orphan_pid(data)
    if pid is None:
        return False
    os.kill(pid, signal.SIGINT)
    if wait_while(lambda: orphan_pid(data) == pid, seconds):
        raise StageFailed(f"PostgreSQL in {data}, process {pid}, still runs after {seconds:.0f} s; see its log")
    return True

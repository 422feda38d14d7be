"""PostgreSQL of the stack: its programs, the user it runs as (it refuses root), its data folder and databases."""

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
_KNOWN = "postgres_data"
_MADE = "PG_VERSION"
_PROGRAMS = ("initdb", "postgres", "psql", "pg_isready")
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Postgres:
    """Programs, user and data folder."""

    programs: Path
    user: str
    data: Path

    def environment(self) -> dict[str, str]:
        """Return what the supervisor's configuration needs."""
        return {
            "STACK_POSTGRES_BIN": str(self.programs),
            "STACK_POSTGRES_USER": self.user,
            "STACK_POSTGRES_DATA": str(self.data),
        }

    def owner(self) -> dict[str, Any]:
        """Return `user` and `group` (numbers) for a process of it or a file; none where this is that user already."""
        if os.getuid():
            return {}
        known = pwd.getpwnam(self.user)
        return {"user": known.pw_uid, "group": known.pw_gid}

    def give(self, *paths: Path) -> None:
        """Hand files over to the user that it runs as."""
        if owner := self.owner():
            for path in paths:
                shutil.chown(path, **owner)


def find_programs(search: str | None = None, version: str | None = None) -> Path:
    """Return the folder of PostgreSQL's programs: the newest of Debian's, or the one on PATH; of `version` where given.

    Raises UserError saying which package to install where there is none.
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
    """Return the major version, as PG_VERSION of a data folder has it."""
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)", said)
    return found[1] if found else ""


def data_folder(state: Path) -> Path:
    """Return where the data of the stack in `state` lies: where its last start put it, there otherwise."""
    known = state / _KNOWN
    return Path(known.read_text(encoding="utf-8")) if known.is_file() else state / "postgres"


def remember(state: Path, server: Postgres) -> None:
    """Note in `state` where the data lies, unless it is in `state` itself, which may be moved."""
    if server.data == state / "postgres":
        (state / _KNOWN).unlink(missing_ok=True)
    else:
        (state / _KNOWN).write_text(str(server.data), encoding="utf-8")


def choose(state: Path, *, running: bool = False) -> Postgres:
    """Return the PostgreSQL of the stack in `state`; as root it runs as the user postgres, who must reach the folder.

    The data lies where DYNAMICID_POSTGRES_DATA says, else where it was; that of a `running` stack where it is. Raises
    UserError for a folder of something else, and where the data that there was is gone.
    """
    data = data_folder(state)
    if not running and (named := os.environ.get(DATA_VARIABLE)):
        data = Path(named).absolute()
    elif (state / _KNOWN).is_file() and not (data / _MADE).is_file():
        raise UserError(
            f"{data}: the databases of this stack were there and are gone; bring the folder back, name it where it is "
            f"now with {DATA_VARIABLE}, or delete {state / _KNOWN} to begin with empty ones"
        )
    made = data / _MADE
    programs = find_programs(version=made.read_text(encoding="utf-8").strip() if made.is_file() else None)
    if data.is_dir() and any(data.iterdir()) and not made.is_file():
        raise UserError(f"{data}: neither empty nor a data folder of PostgreSQL; name another one with {DATA_VARIABLE}")
    if os.getuid() != 0:
        return Postgres(programs, getpass.getuser(), data)
    server = Postgres(programs, "postgres", data)
    try:
        owner = server.owner()
    except KeyError:
        raise UserError("PostgreSQL refuses root, and there is no user postgres; `useradd --system postgres`") from None
    data.mkdir(parents=True, exist_ok=True)
    server.give(data)
    data.chmod(0o700)
    if subprocess.run(["test", "-w", str(data)], check=False, **owner).returncode:
        raise UserError(
            f"{data}: the user postgres cannot reach this folder (PostgreSQL refuses to run as root); open the folders "
            f"above it with `chmod o+x`, or name another with {DATA_VARIABLE}"
        )
    return server


def initialise(postgres: Postgres, configuration: Path, password: str) -> None:
    """Make the data folder where there is none yet; copy the configuration into it."""
    if not (postgres.data / _MADE).is_file():
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(password)
            file.flush()
            postgres.give(Path(file.name))
            options = ("-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8")
            command = (postgres.programs / "initdb", "-D", postgres.data, *options, f"--pwfile={file.name}")
            run_program(f"initdb in {postgres.data}", *command, cwd="/", **postgres.owner())
    # A copy: the user it runs as may not be able to read the checkout.
    target = postgres.data / "postgresql.conf"
    target.write_text(configuration.read_text(encoding="utf-8"), encoding="utf-8")
    postgres.give(target)


def is_ready(postgres: Postgres, environment: Mapping[str, str]) -> bool:
    """Whether the server accepts connections."""
    command = [str(postgres.programs / "pg_isready"), "-q"]
    return not subprocess.run(command, env=dict(environment), capture_output=True, check=False).returncode


def wait_ready(postgres: Postgres, environment: Mapping[str, str], seconds: float) -> None:
    """Wait until the server accepts connections; raise StageFailed after `seconds`."""
    if wait_while(lambda: not is_ready(postgres, environment), seconds):
        raise StageFailed(f"PostgreSQL on port {environment['PGPORT']} is not ready after {seconds:.0f} s; see its log")


def make_databases(postgres: Postgres, script: Path, environment: Mapping[str, str]) -> None:
    """Run the SQL that makes roles and databases, as the database's superuser."""
    as_superuser = {**environment, "PGUSER": "postgres", "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
    psql = (postgres.programs / "psql", "--no-psqlrc", "--quiet", "-d", "postgres", "-f", script)
    run_program(script.name, *psql, env=as_superuser)


def orphan(data: Path) -> int | None:
    """Return the process that serves the data folder and lost its supervisor, or None.

    A `postmaster.pid` may have outlived its server, and another program may have got the number since; a server that
    has a supervisor belongs to that one, though its data folder is named here, too.
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


def end(data: Path, seconds: float = 60) -> bool:
    """End a server that outlived its supervisor, and return whether there was one.

    By a fast shutdown: connections are closed, nothing that was committed is lost. Raises StageFailed where it does not
    end in `seconds`.
    """
    number = orphan(data)
    if number is None:
        return False
    os.kill(number, signal.SIGINT)
    if wait_while(lambda: orphan(data) == number, seconds):
        raise StageFailed(f"PostgreSQL in {data}, process {number}, still runs after {seconds:.0f} s; see its log")
    return True

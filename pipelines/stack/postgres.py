"""PostgreSQL of the stack: its programs, the user it runs as (it refuses root), its data folder and databases."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import StageFailed, UserError

DATA_VARIABLE = "DYNAMICID_POSTGRES_DATA"
_KNOWN = "postgres_data"
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


def find_programs(search: str | None = None) -> Path:
    """Return the folder of PostgreSQL's programs: the newest of Debian's, or the one on PATH.

    Raises UserError saying which package to install where there is none.
    """
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name)) if search is None else []
    on_path = shutil.which("postgres", path=search)
    folders = [*reversed(versions), *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in folders:
        if all((folder / name).is_file() for name in _PROGRAMS):
            return folder
    raise UserError(
        f"PostgreSQL is missing ({', '.join(_PROGRAMS)} in one folder): apt-get install postgresql (Debian, Ubuntu), "
        "brew install postgresql@15 (macOS)"
    )


def data_folder(state: Path) -> Path:
    """Return where the data of the stack in `state` lies: where its last start put it, there otherwise."""
    known = state / _KNOWN
    return Path(known.read_text(encoding="utf-8")) if known.is_file() else state / "postgres"


def choose(state: Path) -> Postgres:
    """Return the PostgreSQL of the stack in `state`; as root it runs as the user postgres, who must reach the folder.

    The data lies where DYNAMICID_POSTGRES_DATA says, which is remembered in `state`.
    """
    programs = find_programs()
    data = Path(os.environ.get(DATA_VARIABLE) or data_folder(state)).absolute()
    (state / _KNOWN).write_text(str(data), encoding="utf-8")
    if os.getuid() != 0:
        return Postgres(programs, getpass.getuser(), data)
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise UserError("PostgreSQL refuses root, and there is no user postgres; `useradd --system postgres`") from None
    data.mkdir(parents=True, exist_ok=True)
    os.chown(data, user.pw_uid, user.pw_gid)
    data.chmod(0o700)
    if subprocess.run(["test", "-w", str(data)], user=user.pw_uid, group=user.pw_gid, check=False).returncode:
        raise UserError(
            f"{data}: the user postgres cannot reach this folder (PostgreSQL refuses to run as root); open the folders "
            f"above it with `chmod o+x`, or name another with {DATA_VARIABLE}"
        )
    return Postgres(programs, "postgres", data)


def initialise(postgres: Postgres, configuration: Path, password: str) -> bool:
    """Make the data folder where there is none yet; copy the configuration into it; return whether it is new."""
    new = not (postgres.data / "PG_VERSION").is_file()
    owner = pwd.getpwnam(postgres.user)
    if new:
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(password)
            file.flush()
            if not os.getuid():
                os.chown(file.name, owner.pw_uid, owner.pw_gid)
            command = [postgres.programs / "initdb", "-D", postgres.data, "-U", "postgres", "--auth=scram-sha-256"]
            done = subprocess.run(
                [*map(str, command), "--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={file.name}"],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
                user=None if os.getuid() else owner.pw_uid,
                group=None if os.getuid() else owner.pw_gid,
            )
        if done.returncode:
            raise StageFailed(
                f"initdb in {postgres.data}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
            )
    # A copy: the user it runs as may not be able to read the checkout.
    target = postgres.data / "postgresql.conf"
    target.write_text(configuration.read_text(encoding="utf-8"), encoding="utf-8")
    if not os.getuid():
        os.chown(target, owner.pw_uid, owner.pw_gid)
    return new


def wait_ready(postgres: Postgres, environment: Mapping[str, str], seconds: float) -> None:
    """Wait until the server accepts connections; raise StageFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(
            [str(postgres.programs / "pg_isready"), "-q"], env=dict(environment), capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        time.sleep(0.3)
    raise StageFailed(f"PostgreSQL on port {environment['PGPORT']} is not ready after {seconds:.0f} s; see its log")


def make_databases(postgres: Postgres, script: Path, environment: Mapping[str, str]) -> None:
    """Run the SQL that makes roles and databases, as the database's superuser."""
    as_superuser = {**environment, "PGUSER": "postgres", "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
    done = subprocess.run(
        [str(postgres.programs / "psql"), "--no-psqlrc", "--quiet", "-d", "postgres", "-f", str(script)],
        env=as_superuser,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageFailed(f"{script.name}: {done.stderr.strip().splitlines()[-1]}")


def postmaster(data: Path) -> int | None:
    """Return the process that serves the data folder, or None: a `postmaster.pid` may have outlived its server."""
    import psutil

    try:
        number = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        # Another program may have got the number since.
        return number if str(data) in psutil.Process(number).cmdline() else None
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return None


def end(data: Path, seconds: float = 60) -> bool:
    """End the server of the data folder by a fast shutdown, wait for it, and return whether there was one.

    For a server that outlived its supervisor: connections are closed, nothing that was committed is lost.
    """
    import psutil

    number = postmaster(data)
    if number is None:
        return False
    try:
        server = psutil.Process(number)
        server.send_signal(signal.SIGINT)
        server.wait(seconds)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        raise StageFailed(
            f"PostgreSQL in {data} (process {number}) did not end in {seconds:.0f} s; see its log"
        ) from None
    return True

"""PostgreSQL of a stack that does not run, for its owner alone: no port, no servers, no password asked."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.core.errors import StageFailed
from pipelines.operations.programs import run_program, wait_while
from pipelines.operations.stack.postgres import Postgres, is_ready

# Part of the socket's name; nothing listens on a port.
PORT = 5432
_NEW_PASSWORD = "\\getenv password POSTGRES_PASSWORD\nALTER ROLE postgres PASSWORD :'password';\n"


@contextmanager
def quiet(server: Postgres, seconds: float = 60) -> Iterator[dict[str, str]]:
    """Run `server` on a socket that its user and root alone reach; yield the environment in which libpq finds it.

    It is ended with the block. Raises StageFailed with PostgreSQL's own words where it does not start, as it does not
    while another one uses the same data folder.
    """
    with tempfile.TemporaryDirectory(prefix="dynamicid-pg-") as name:
        folder = Path(name)
        rules, log = folder / "pg_hba.conf", folder / "log"
        rules.write_text("local all all trust\n", encoding="utf-8")
        server.give(folder, rules)
        places = {"listen_addresses": "", "unix_socket_directories": folder, "hba_file": rules}
        options = [part for setting, value in places.items() for part in ("-c", f"{setting}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(server.programs / "postgres"), "-D", str(server.data), "-p", str(PORT), *options],
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                **server.owner(),
            )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"PGHOST": str(folder), "PGPORT": str(PORT)}
        try:
            late = wait_while(lambda: process.poll() is None and not is_ready(server, environment), seconds)
            if late or process.poll() is not None:
                said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-2:]
                why = "; ".join(said) or f"not ready after {seconds:.0f} s"
                raise StageFailed(f"PostgreSQL in {server.data} does not start: {why}")
            yield environment
        finally:
            _end(process)


def set_superuser_password(server: Postgres, environment: Mapping[str, str], password: str) -> None:
    """Give the superuser of a quiet server `password`, which is on no command line."""
    psql = (server.programs / "psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "postgres")
    secret = {**environment, "POSTGRES_PASSWORD": password}
    run_program("PostgreSQL's superuser cannot be given a password", *psql, env=secret, input=_NEW_PASSWORD)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: everything is on disk
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

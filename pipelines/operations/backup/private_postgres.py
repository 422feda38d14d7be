"""Run only the PostgreSQL of a stopped stack, on a private socket without port and password."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipelines.core.environment import clean_environment, plain_folder
from pipelines.core.errors import StageFailed
from pipelines.operations.programs import run_program, wait_while
from pipelines.operations.stack.postgres import Postgres, is_ready

# Only part of the socket's name: no TCP port is opened.
PORT = 5432
_NEW_PASSWORD = "\\getenv password POSTGRES_PASSWORD\nALTER ROLE postgres PASSWORD :'password';\n"


@contextmanager
def private_server(server: Postgres, seconds: float = 60) -> Iterator[dict[str, str]]:
    """Run `server` during the block on a socket that only its user and root can reach; yield libpq's environment.

    Raises StageFailed with PostgreSQL's message where it does not start, such as when another server uses the folder.
    """
    # A list of folders, and a socket with a short path.
    with plain_folder() as folder:
        rules, log = folder / "pg_hba.conf", folder / "log"
        rules.write_text("local all all trust\n", encoding="utf-8")
        server.chown(folder, rules)
        settings = {"listen_addresses": "", "unix_socket_directories": folder, "hba_file": rules}
        options = [part for setting, value in settings.items() for part in ("-c", f"{setting}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(server.programs / "postgres"), "-D", str(server.data), "-p", str(PORT), *options],
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                **server.user_and_group(),
            )
        environment = {name: value for name, value in clean_environment().items() if not name.startswith("PG")}
        environment |= {"PGHOST": str(folder), "PGPORT": str(PORT)}
        try:
            late = wait_while(lambda: process.poll() is None and not is_ready(server, environment), seconds)
            if late or process.poll() is not None:
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-2:]
                why = "; ".join(lines) or f"not ready after {seconds:.0f} s"
                raise StageFailed(f"PostgreSQL in {server.data} does not start: {why}")
            yield environment
        finally:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown, which writes everything to disk
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def set_superuser_password(server: Postgres, environment: Mapping[str, str], password: str) -> None:
    """Set the superuser's password on a private server; the password is on no command line."""
    psql = (server.programs / "psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "postgres")
    secret = {**environment, "POSTGRES_PASSWORD": password}
    run_program("PostgreSQL's superuser password cannot be set", *psql, env=secret, input=_NEW_PASSWORD)

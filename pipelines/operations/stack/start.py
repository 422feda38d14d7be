"""Starting the stack: database first, then schemas and pools, then every server, until all are healthy."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.programs import run_program
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.accounts import make_pipeline_account
from pipelines.operations.stack.credentials import credentials
from pipelines.operations.stack.health import wait_healthy
from pipelines.operations.stack.settings import Stack, keep_ports, known_ports
from pipelines.operations.stack.supervisor import (
    alone,
    is_running,
    launch,
    left_over,
    shut_down,
    start_services,
    unreachable,
)


def start(stack: Stack, tell: Callable[[str], None], seconds: float = 300) -> None:
    """Bring the stack up and wait until it is healthy; a second call finds it running and heals what is stopped.

    Raises UserError where it runs on other ports, StageFailed where it does not get healthy in `seconds`.
    """
    with alone(stack):
        _start(stack, tell, seconds)


def _start(stack: Stack, tell: Callable[[str], None], seconds: float) -> None:
    running = is_running(stack)
    if running and known_ports(stack.state) != stack.ports:
        raise UserError(f"the stack runs on other ports, {known_ports(stack.state)}; `make stack-stop` ends it first")
    if (deaf := unreachable(stack)) is not None:
        raise StageFailed(
            f"the stack runs, but its supervisor (process {deaf}) does not answer at {stack.socket}; `make stack-stop` "
            "ends it, with what it works on"
        )
    if not running and left_over(stack):
        tell("the supervisor was killed: ending what it left behind")
        shut_down(stack)
    server = database.choose(stack.state, running=running)
    if not running:
        stack.check_ports()
    environment = {**stack.environment(), **server.environment()}
    if not running:
        keep_ports(stack)
        stack.write_passwords()
        tell(f"PostgreSQL in {server.data}, as user {server.user}")
        configuration = stack.root / "docker" / "postgres" / "postgresql.conf"
        database.initialise(server, configuration, environment["POSTGRES_PASSWORD"])
        database.remember(stack.state, server)
        launch(stack, environment)
    start_services(stack, ("postgres",))
    database.wait_ready(server, environment, seconds=60)
    database.make_databases(server, stack.root / "docker" / "postgres" / "init.sql", environment)
    tell("Airflow's schema and pools")
    for arguments in (("db", "migrate"), ("pools", "import", str(stack.root / "docker" / "pools.json"))):
        command = (sys.executable, "-m", "airflow", *arguments)
        run_program(f"airflow {' '.join(arguments)}", *command, env=environment)
    start_services(stack)
    tell(f"waiting until everything is healthy: {wait_healthy(stack, seconds):.0f} s")
    make_pipeline_account(stack.mlflow_url, credentials(stack.state))

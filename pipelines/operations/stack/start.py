"""Start the stack: database first, then schemas and pools, then every server, until all are healthy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.programs import run_program
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.health import http_request, wait_healthy
from pipelines.operations.stack.settings import PIPELINE_USER, Stack, save_ports, saved_ports
from pipelines.operations.stack.supervisor import (
    has_processes,
    is_running,
    launch,
    lock_stack,
    shut_down,
    start_services,
    unresponsive_supervisor,
)


def start(stack: Stack, report: Callable[[str], None], seconds: float = 300) -> None:
    """Start the stack and wait until it is healthy; in a running stack start the services that are stopped.

    `report` gets a line about each step. Raises UserError where the stack runs on other ports, StageFailed where it is
    not healthy after `seconds`.
    """
    with lock_stack(stack):
        _start(stack, report, seconds)


def _start(stack: Stack, report: Callable[[str], None], seconds: float) -> None:
    running = is_running(stack)
    if running and saved_ports(stack.state) != stack.ports:
        raise UserError(f"the stack runs on other ports, {saved_ports(stack.state)}; `make stack-stop` ends it first")
    if (pid := unresponsive_supervisor(stack)) is not None:
        raise StageFailed(
            f"the stack runs, but its supervisor (process {pid}) does not answer at {stack.socket}; `make stack-stop` "
            "ends it and its services"
        )
    if not running and has_processes(stack):
        report("the supervisor was killed: ending its remaining processes")
        shut_down(stack)
    if not running:
        stack.check_ports()
    environment = start_database(stack, report, running=running)
    report("Airflow's schema and pools")
    for arguments in (("db", "migrate"), ("pools", "import", str(stack.root / "docker" / "pools.json"))):
        command = (sys.executable, "-m", "airflow", *arguments)
        run_program(f"airflow {' '.join(arguments)}", *command, env=environment)
    start_services(stack)
    report(f"all servers healthy after {wait_healthy(stack, seconds):.0f} s")
    make_pipeline_account(stack.mlflow_url, environment)


def start_database(stack: Stack, report: Callable[[str], None], *, running: bool = False) -> dict[str, str]:
    """Start the supervisor unless it is `running`, then PostgreSQL; create its databases; return their environment."""
    server = database.configure(stack.state, running=running)
    environment = {**stack.environment(), **server.environment()}
    settings = stack.root / "docker" / "postgres"
    if not running:
        save_ports(stack)
        stack.write_passwords()
        report(f"PostgreSQL in {server.data}, as user {server.user}")
        database.initialise(server, settings / "postgresql.conf", environment["POSTGRES_PASSWORD"])
        database.save_data_folder(stack.state, server)
        launch(stack, environment)
    start_services(stack, ("postgres",))
    database.wait_ready(server, environment, seconds=60)
    database.make_databases(server, settings / "init.sql", environment)
    return environment


def make_pipeline_account(url: str, secret: Mapping[str, str]) -> bool:
    """Create the pipeline's MLflow account, so that it does not write as the administrator; return whether it is new.

    Raises StageFailed where the server neither creates it nor answers that it exists.
    """
    code, body = http_request(
        "POST",
        f"{url}/api/2.0/mlflow/users/create",
        json={"username": PIPELINE_USER, "password": secret["MLFLOW_TRACKING_PASSWORD"]},
        auth=(b"admin", secret["MLFLOW_AUTH_ADMIN_PASSWORD"].encode()),
    )
    if code == 200:
        return True
    if b"RESOURCE_ALREADY_EXISTS" in body:
        return False
    raise StageFailed(f"{url}: the account {PIPELINE_USER} could not be made (HTTP {code}: {body[:200].decode()})")

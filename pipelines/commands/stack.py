"""`dynamicid stack`: PostgreSQL, Airflow and MLflow on this machine: start, stop, look, single services."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit, emit_if_asked, say, say_done
from pipelines.core.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)

State = Annotated[Path, option("Folder of databases, logs and credentials.", envvar="DYNAMICID_STACK", metavar="DIR")]
_STATE = Path(".dynamicid/stack")
PortOption = Annotated[int | None, option("Port on 127.0.0.1; default: as last time.", min=1024, max=65535)]


@app.command()
def start(
    *,
    state: State = _STATE,
    postgres_port: PortOption = None,
    airflow_port: PortOption = None,
    mlflow_port: PortOption = None,
    inbox: Annotated[
        str | None, option("Folder or object-store prefix that new photos come to.", envvar="DYNAMICID_INBOX")
    ] = None,
    timeout: Annotated[int, option("Seconds to wait for every server.", min=10)] = 300,
) -> None:
    """Start what does not run yet, wait until all is healthy, print the addresses."""
    from pipelines.operations.stack.credentials import FILE
    from pipelines.operations.stack.settings import Ports, stack_in
    from pipelines.operations.stack.start import start as bring_up

    stack = stack_in(state, started=False)
    before = stack.ports
    ports = Ports(postgres_port or before.postgres, airflow_port or before.airflow, mlflow_port or before.mlflow)
    stack = replace(stack, ports=ports, inbox=inbox)
    bring_up(stack, say, timeout)
    say_done("the stack is up")
    say(f"Airflow  {stack.airflow_url}  user admin")
    say(f"MLflow   {stack.mlflow_url}  user admin")
    file = stack.state / FILE
    say(f"passwords: {file}")
    emit({"airflow": stack.airflow_url, "mlflow": stack.mlflow_url, "credentials": str(file)})


@app.command()
def stop(state: State = _STATE) -> None:
    """End the processes of this stack and no others; databases, logs and credentials stay."""
    from pipelines.operations.stack.settings import stack_in
    from pipelines.operations.stack.supervisor import has_processes, lock_stack, shut_down

    stack = stack_in(state)
    if not has_processes(stack):
        say("the stack does not run")
        emit_if_asked({"ended": False})
        return
    with lock_stack(stack):
        left = shut_down(stack)
    say(f"the stack is down{f', {left} processes that it had left behind ended' if left else ''}")


@app.command()
def status(state: State = _STATE) -> None:
    """Print the state of every service as JSON; exit 1 where something is not healthy."""
    from pipelines.core.errors import StageFailed
    from pipelines.operations.stack import supervisor
    from pipelines.operations.stack.health import unhealthy
    from pipelines.operations.stack.settings import stack_in

    stack = stack_in(state)
    if not supervisor.is_running(stack):
        raise StageFailed("the stack does not run; `make stack` starts it")
    emit(supervisor.status(stack))
    if problems := unhealthy(stack):
        raise StageFailed(", ".join(f"{name}: {why}" for name, why in problems.items()))


@app.command()
def service(
    action: Annotated[str, argument("start, stop or restart.")],
    name: Annotated[str, argument("A service as `dynamicid stack status` lists it.")],
    state: State = _STATE,
) -> None:
    """Start, stop or restart one service, for maintenance."""
    from pipelines.operations.stack import supervisor
    from pipelines.operations.stack.settings import stack_in

    stack = stack_in(state)
    if action not in ("start", "stop", "restart"):
        raise UserError(f"{action}: expected start, stop or restart")
    if name not in supervisor.SERVICES:
        raise UserError(f"{name}: no such service; there are {', '.join(supervisor.SERVICES)}")
    if not supervisor.is_running(stack):
        raise UserError("the stack does not run; `make stack` starts it")
    if action != "start":
        supervisor.stop_services(stack, (name,))
    if action != "stop":
        supervisor.start_services(stack, (name,))


@app.command()
def credentials(state: State = _STATE) -> None:
    """Generate the passwords where there are none yet; print the path of their file."""
    from pipelines.operations.stack.credentials import FILE
    from pipelines.operations.stack.credentials import credentials as generate

    generate(state.absolute())
    file = str(state.absolute() / FILE)
    emit({"credentials": file}, file)


@app.command()
def accounts(url: Annotated[str, option("Address of the MLflow server.", envvar="MLFLOW_TRACKING_URI")]) -> None:
    """Make the pipeline's MLflow account, with the passwords of the environment; for containers."""
    import os

    from pipelines.operations.stack.start import make_pipeline_account

    missing = [name for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD") if not os.environ.get(name)]
    if missing:
        raise UserError(f"{', '.join(missing)}: not set; `dynamicid stack credentials` generates them")
    made = make_pipeline_account(url, os.environ)
    say("the pipeline's account is new" if made else "the pipeline's account is there")


@app.command()
def project(
    home: Annotated[Path, argument("The project's repository, in a volume; made where there is none.")],
) -> None:
    """Bring the project's repository up to the code of this image; for containers."""
    from pipelines.core.paths import project_root
    from pipelines.operations.stack.project import bring_up_to_date

    say(bring_up_to_date(home.absolute(), project_root()))

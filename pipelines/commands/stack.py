"""`dynamicid stack`: PostgreSQL, Airflow and MLflow as servers on this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pipelines.commands.options import argument, command_group, option
from pipelines.commands.output import emit, emit_if_asked, say, say_done
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.paths import project_root
from pipelines.core.words import counted
from pipelines.operations.audit import audited
from pipelines.operations.stack import supervisor
from pipelines.operations.stack.credentials import FILE
from pipelines.operations.stack.credentials import credentials as make_credentials
from pipelines.operations.stack.health import unhealthy
from pipelines.operations.stack.images import build as build_images
from pipelines.operations.stack.images import references
from pipelines.operations.stack.images import renew as renew_images
from pipelines.operations.stack.project import bring_up_to_date
from pipelines.operations.stack.sbom import write_sboms
from pipelines.operations.stack.settings import Ports, stack_in
from pipelines.operations.stack.start import make_pipeline_account
from pipelines.operations.stack.start import start as start_stack

app = command_group("Start and stop PostgreSQL, Airflow and MLflow on this machine, and show their state.")

State = Annotated[Path, option("Folder of databases, logs and credentials.", envvar="DYNAMICID_STACK", metavar="DIR")]
_STATE = Path(".dynamicid/stack")
_IMAGES = "images.env"
PortOption = Annotated[int | None, option("Port on 127.0.0.1; default: the last one used.", min=1024, max=65535)]


@app.command()
def start(
    *,
    state: State = _STATE,
    postgres_port: PortOption = None,
    airflow_port: PortOption = None,
    mlflow_port: PortOption = None,
    inbox: Annotated[
        str | None, option("Folder or object-store prefix for new photos.", envvar="DYNAMICID_INBOX")
    ] = None,
    timeout: Annotated[int, option("Seconds to wait until all servers are healthy.", min=10)] = 300,
) -> None:
    """Start the services that are not running, wait until all are healthy, print their addresses."""
    stack = stack_in(state, started=False)
    before = stack.ports
    ports = Ports(postgres_port or before.postgres, airflow_port or before.airflow, mlflow_port or before.mlflow)
    stack = replace(stack, ports=ports, inbox=inbox)
    with audited(Path.cwd(), "accounts", action="start the stack", stack=str(stack.state)):
        start_stack(stack, say, timeout)
    say_done("the stack is up")
    say(f"Airflow  {stack.airflow_url}  user admin")
    say(f"MLflow   {stack.mlflow_url}  user admin")
    say(f"passwords: {stack.state / FILE}")
    emit({"airflow": stack.airflow_url, "mlflow": stack.mlflow_url, "credentials": str(stack.state / FILE)})


@app.command()
def stop(state: State = _STATE) -> None:
    """Stop the processes of this stack only; databases, logs and credentials stay."""
    stack = stack_in(state)
    if not supervisor.has_processes(stack):
        say("the stack does not run")
        emit_if_asked({"ended": False})
        return
    with supervisor.lock_stack(stack):
        left = supervisor.shut_down(stack)
    ended = f"; ended {counted(left, 'process', 'processes')} that it had left behind" if left else ""
    say(f"the stack is down{ended}")
    emit_if_asked({"ended": True, "left_behind": left})


@app.command()
def status(state: State = _STATE) -> None:
    """Print the state of every service as JSON; exit 1 if one is unhealthy."""
    stack = stack_in(state)
    if not supervisor.is_running(stack):
        raise StageFailed("the stack does not run; `make stack` starts it")
    emit(supervisor.status(stack))
    if problems := unhealthy(stack):
        raise StageFailed(", ".join(f"{name}: {why}" for name, why in problems.items()))


@app.command()
def service(
    action: Annotated[Literal["start", "stop", "restart"], argument("What to do.")],
    name: Annotated[str, argument("Name of a service, as listed by `dynamicid stack status`.")],
    state: State = _STATE,
) -> None:
    """Start, stop or restart one service, for maintenance."""
    stack = stack_in(state)
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
    """Generate passwords if there are none yet; print the path of their file."""
    file = str(state.absolute() / FILE)
    with audited(Path.cwd(), "accounts", action="generate passwords", file=file):
        make_credentials(state.absolute())
    emit({"credentials": file}, file)


@app.command()
def images(
    *,
    renew: Annotated[bool, option("Ask the registries for the digests and write the lock file.", "--renew")] = False,
    locked: Annotated[bool, option("Exit 2 where an image has no digest yet.", "--locked")] = False,
    sbom: Annotated[Path | None, option("Also write a CycloneDX file of each image here.", metavar="DIR")] = None,
) -> None:
    """Print the images that containers are built from and run, as lines for `docker compose --env-file`."""
    if renew:
        renew_images(project_root())
    given = references(project_root(), locked=locked)
    emit(given, "\n".join(f"{name}={reference}" for name, reference in given.items()))
    for file in write_sboms(project_root(), sbom) if sbom is not None else ():
        say(f"{file}: written")


@app.command()
def build(
    state: State = _STATE,
    locked: Annotated[bool, option("Only from digests, not from tags.", "--locked")] = False,
) -> None:
    """Build the images of the containers with `docker compose`, from the references of docker/images.lock.json."""
    given = references(project_root(), locked=locked)
    make_credentials(state.absolute())
    build_images(project_root(), state.absolute() / FILE, given)
    file = state.absolute() / _IMAGES
    write_atomically(file, "".join(f"{name}={reference}\n" for name, reference in given.items()))
    emit(given, "")
    say(f"built; `docker compose … --env-file {file} up` runs the other services from the same references")


@app.command()
def accounts(url: Annotated[str, option("Address of the MLflow server.", envvar="MLFLOW_TRACKING_URI")]) -> None:
    """Create the pipeline's MLflow account with the passwords in the environment (for containers)."""
    missing = [name for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD") if not os.environ.get(name)]
    if missing:
        raise UserError(f"{', '.join(missing)}: not set; `dynamicid stack credentials` generates them")
    with audited(Path.cwd(), "accounts", action="create the pipeline's account", server=url) as result:
        made = result["created"] = make_pipeline_account(url, os.environ)
    say(f"the pipeline's account {'was created' if made else 'exists'}")


@app.command()
def project(home: Annotated[Path, argument("The project's repository, in a volume; created if missing.")]) -> None:
    """Update the project's repository to the code of this image (for containers)."""
    say(bring_up_to_date(home.absolute(), project_root()))

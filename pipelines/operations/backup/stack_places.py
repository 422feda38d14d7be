"""The databases of a stack: which there are, and their addresses while its PostgreSQL runs."""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import project_root
from pipelines.operations.stack.credentials import FILE, read_env
from pipelines.operations.stack.settings import LOOPBACK, Ports, Stack, known_ports
from pipelines.operations.stack.supervisor import is_running, status
from pipelines.registry.settings import ledger_root

ARTEFACTS = "mlartifacts"
# Who owns each database, and where that role's password is; see docker/postgres/init.sql.
_PASSWORDS = {"mlflow": "MLFLOW_DB_PASSWORD", "airflow": "AIRFLOW_DB_PASSWORD"}


@dataclass(frozen=True)
class Databases:
    """SQLAlchemy addresses of MLflow's ledger, MLflow's accounts and Airflow, with passwords."""

    ledger: str = field(repr=False)
    accounts: str = field(repr=False)
    airflow: str = field(repr=False)


def find_stack(root: Path, state: Path | None = None) -> Stack | None:
    """Return the stack that was started in `state`; UserError where that is named and none ever was.

    Without a name it is looked for in `.dynamicid/stack` of the checkout `root`: None where there is none.
    """
    folder = (state or default_state(root)).absolute()
    if state is None and not (folder / "ports.json").is_file():
        return None
    return Stack(project_root(), folder, known_ports(folder))


def stack_for(root: Path, state: Path | None = None) -> Stack:
    """Return the stack in `state` (default: the checkout's), though it was never started: a place to restore into."""
    folder = (state or default_state(root)).absolute()
    started = (folder / "ports.json").is_file()
    return Stack(project_root(), folder, known_ports(folder) if started else Ports())


def default_state(root: Path) -> Path:
    """Return the folder in which `make stack` keeps the state of the checkout `root`."""
    return ledger_root(root) / ".dynamicid" / "stack"


def running_databases(stack: Stack) -> Databases:
    """Return the addresses of a stack whose PostgreSQL runs; UserError where it does not, or its passwords are gone."""
    if not is_running(stack) or status(stack).get("postgres") not in ("RUNNING", "STARTING"):
        raise UserError(
            f"{stack.state}: the PostgreSQL of this stack does not run, so nothing was copied; `make stack` starts it "
            "(--ledger and --airflow name other databases)"
        )
    if not (stack.state / FILE).is_file():
        raise UserError(
            f"{stack.state / FILE}: missing, and the passwords of the running databases with it; put the file back"
        )
    return addresses(stack, LOOPBACK, stack.ports.postgres, read_env(stack.state / FILE))


def addresses(stack: Stack, host: str, port: int, secret: dict[str, str] | None = None) -> Databases:
    """Return the addresses of the stack's databases at `host` (a name, or the folder of a socket).

    The databases' names are those that MLflow and Airflow are given. Without `secret` no password is named.
    """
    accounts = ConfigParser(interpolation=None)
    accounts.read(stack.root / "mlflow" / "basic_auth.ini", encoding="utf-8")
    airflow = read_env(stack.root / "docker" / "airflow.env")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]

    def at(uri: str, role: str) -> str:
        from sqlalchemy.engine import make_url

        password = None if secret is None else secret[_PASSWORDS[role]]
        address = make_url(uri).set(username=role, password=password, query={"host": host, "port": str(port)})
        return address.render_as_string(hide_password=False)

    return Databases(
        ledger=at(read_env(stack.root / "mlflow" / "server.env")["MLFLOW_BACKEND_STORE_URI"], "mlflow"),
        accounts=at(accounts["mlflow"]["database_uri"], "mlflow"),
        airflow=at(airflow, "airflow"),
    )

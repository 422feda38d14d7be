"""Where the databases and artefacts are: named on the command line, in a stack, or files of the checkout."""

from __future__ import annotations

import os
from configparser import ConfigParser
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.operations.stack.credentials import FILE, read_credentials, read_env
from pipelines.operations.stack.settings import LOOPBACK, Stack, stack_in, was_started
from pipelines.operations.stack.supervisor import is_running, status
from pipelines.registry.settings import database, sqlite_uri, tracking_root

_ARTEFACTS = "mlartifacts"


@dataclass(frozen=True)
class Addresses:
    """SQLAlchemy addresses of databases, with passwords, and the folder of artefacts; None: not named or absent."""

    ledger: str | None = field(default=None, repr=False)
    artefacts: Path | None = None
    airflow: str | None = field(default=None, repr=False)
    accounts: str | None = field(default=None, repr=False)

    @property
    def complete(self) -> bool:
        """Whether the databases of MLflow and Airflow are both named, so that no stack is needed."""
        return bool(self.ledger and self.airflow)

    def databases(self) -> dict[str, str]:
        """Return the known addresses by the name of the database in a backup."""
        given = {"mlflow": self.ledger, "accounts": self.accounts, "airflow": self.airflow}
        return {name: uri for name, uri in given.items() if uri}


@dataclass(frozen=True, kw_only=True)
class Locations(Addresses):
    """What is backed up or restored, and the checkout `root`.

    `artefacts` is None where they are elsewhere (an object store). `credentials` is the file of a stack's passwords.
    `served`: MLflow refers to artefacts through its server and not by path, so that they can be restored elsewhere.
    """

    root: Path
    credentials: Path | None = None
    served: bool = False


def find_locations(root: Path, named: Addresses, state: Path | None = None) -> Locations:
    """Return what there is to back up in the checkout `root`.

    Addresses that are `named` take precedence over the stack that was started in `state` (default: the checkout's),
    the stack over files of the checkout. Raises UserError where the stack is needed and its PostgreSQL does not run.
    """
    here = checkout_locations(root, named, present=True)
    folder = state or default_state(root)
    if named.complete or not (state or was_started(folder)):
        return here
    stack = stack_in(folder)
    return stack_locations(here, named, stack, _running_databases(stack))


def checkout_locations(root: Path, named: Addresses, *, present: bool) -> Locations:
    """Return what is `named`, else the files of the checkout; with `present` only those that exist."""
    home = tracking_root(root)
    scheduler = Path(os.environ.get("AIRFLOW_HOME") or home / "airflow").resolve() / "airflow.db"
    folder = home / _ARTEFACTS

    def address(file: Path) -> str | None:
        return sqlite_uri(file) if file.is_file() or not present else None

    return Locations(
        root=root.resolve(),
        ledger=named.ledger or address(database(root)),
        artefacts=named.artefacts or (folder if folder.is_dir() or not present else None),
        airflow=named.airflow or address(scheduler),
        accounts=named.accounts,
    )


def stack_locations(here: Locations, named: Addresses, stack: Stack, own: Addresses) -> Locations:
    """Return the locations of a stack with the addresses `own`; `named` ones take precedence.

    With a named MLflow database, artefacts and accounts are those of `here`: they never come from the stack.
    """
    found = replace(here, airflow=named.airflow or own.airflow, credentials=stack.state / FILE)
    if named.ledger:
        return found
    artefacts, accounts = named.artefacts or own.artefacts, named.accounts or own.accounts
    return replace(found, ledger=own.ledger, artefacts=artefacts, accounts=accounts, served=True)


def default_state(root: Path) -> Path:
    """Return the state folder of `make stack` in the checkout `root`."""
    return tracking_root(root) / ".dynamicid" / "stack"


def _running_databases(stack: Stack) -> Addresses:
    """Return a stack's addresses; UserError where its PostgreSQL does not run or its password file is missing."""
    if not is_running(stack) or status(stack).get("postgres") not in ("RUNNING", "STARTING"):
        raise UserError(
            f"{stack.state}: the PostgreSQL of this stack does not run, so nothing was copied; `make stack` starts it "
            "(--ledger and --airflow name other databases)"
        )
    if not (stack.state / FILE).is_file():
        raise UserError(
            f"{stack.state / FILE}: the file with the passwords of the running databases is missing; restore it"
        )
    return addresses(stack, LOOPBACK, stack.ports.postgres, read_credentials(stack.state / FILE))


def addresses(stack: Stack, host: str, port: int, secret: dict[str, str] | None = None) -> Addresses:
    """Return the addresses of the stack's databases at `host` (a host name or the folder of a socket).

    The database names come from the configuration of MLflow and Airflow. Without `secret` they have no password.
    """
    accounts = ConfigParser(interpolation=None)
    accounts.read(stack.root / "mlflow" / "basic_auth.ini", encoding="utf-8")
    airflow = read_env(stack.root / "docker" / "airflow.env")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]

    def at(uri: str, role: str) -> str:
        from sqlalchemy.engine import make_url

        # Each database role has its own password, see docker/postgres/init.sql.
        password = None if secret is None else secret[f"{role.upper()}_DB_PASSWORD"]
        address = make_url(uri).set(username=role, password=password, query={"host": host, "port": str(port)})
        return address.render_as_string(hide_password=False)

    return Addresses(
        ledger=at(read_env(stack.root / "mlflow" / "server.env")["MLFLOW_BACKEND_STORE_URI"], "mlflow"),
        artefacts=stack.state / _ARTEFACTS,
        airflow=at(airflow, "airflow"),
        accounts=at(accounts["mlflow"]["database_uri"], "mlflow"),
    )

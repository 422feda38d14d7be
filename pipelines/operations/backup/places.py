"""Where registry, accounts and Airflow's database are: named by hand, those of a stack, or files of the checkout."""

from __future__ import annotations

import os
from configparser import ConfigParser
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.operations.stack.credentials import FILE, read_env
from pipelines.operations.stack.settings import LOOPBACK, Stack, stack_in, was_started
from pipelines.operations.stack.supervisor import is_running, status
from pipelines.registry.settings import database, ledger_root

_ARTEFACTS = "mlartifacts"
# Who owns each database, and where that role's password is; see docker/postgres/init.sql.
_PASSWORDS = {"mlflow": "MLFLOW_DB_PASSWORD", "airflow": "AIRFLOW_DB_PASSWORD"}


@dataclass(frozen=True)
class Addresses:
    """SQLAlchemy addresses of databases, with passwords, and the folder of artefacts; None: not named, or none."""

    ledger: str | None = field(default=None, repr=False)
    artefacts: Path | None = None
    airflow: str | None = field(default=None, repr=False)
    accounts: str | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        """Whether both servers' databases are named, so that no stack is asked for one."""
        return bool(self.ledger and self.airflow)

    def databases(self) -> dict[str, str]:
        """Return the addresses that there are, by the name that each database has in a backup."""
        given = {"mlflow": self.ledger, "accounts": self.accounts, "airflow": self.airflow}
        return {name: uri for name, uri in given.items() if uri}


@dataclass(frozen=True, kw_only=True)
class Places(Addresses):
    """What is backed up, or where it is put back, and the checkout `root`.

    No artefacts: they are kept elsewhere (an object store). `credentials` is the file of a stack's passwords. `served`:
    the ledger names its artefacts through the MLflow server and not by their path, so that they may be put into
    another folder.
    """

    root: Path
    credentials: Path | None = None
    served: bool = False


def places_of(root: Path, named: Addresses, state: Path | None = None) -> Places:
    """Return what there is to back up in the checkout `root`.

    What is `named` by hand comes first, then the stack that was started in `state` (default: the checkout's own), then
    the files of the checkout. Raises UserError where the stack is needed and its PostgreSQL does not run.
    """
    here = places_of_checkout(root, named, present=True)
    stack = None if named.whole else _find_stack(root, state)
    return here if stack is None else places_of_stack(here, named, stack, _running_databases(stack))


def places_of_checkout(root: Path, named: Addresses, *, present: bool) -> Places:
    """Return what is `named` by hand, else the files of the checkout: all, or those that are `present`."""
    home = ledger_root(root)
    scheduler = Path(os.environ.get("AIRFLOW_HOME") or home / "airflow").resolve() / "airflow.db"
    folder = home / _ARTEFACTS

    def own(file: Path) -> str | None:
        return f"sqlite:///{file}" if file.is_file() or not present else None

    return Places(
        root=root.resolve(),
        ledger=named.ledger or own(database(root)),
        artefacts=named.artefacts or (folder if folder.is_dir() or not present else None),
        airflow=named.airflow or own(scheduler),
        accounts=named.accounts,
    )


def places_of_stack(here: Places, named: Addresses, stack: Stack, own: Addresses) -> Places:
    """Return the places of a stack whose addresses are its `own`, but for what is `named` by hand.

    A ledger named by hand is never mixed with artefacts and accounts of the stack: they are those of `here`.
    """
    found = replace(here, airflow=named.airflow or own.airflow, credentials=stack.state / FILE)
    if named.ledger:
        return found
    artefacts, accounts = named.artefacts or own.artefacts, named.accounts or own.accounts
    return replace(found, ledger=own.ledger, artefacts=artefacts, accounts=accounts, served=True)


def default_state(root: Path) -> Path:
    """Return the folder in which `make stack` keeps the state of the checkout `root`."""
    return ledger_root(root) / ".dynamicid" / "stack"


def _find_stack(root: Path, state: Path | None) -> Stack | None:
    """Return the stack in `state`, UserError where none was started there; unnamed the checkout's, or None."""
    folder = state or default_state(root)
    return stack_in(folder) if state or was_started(folder) else None


def _running_databases(stack: Stack) -> Addresses:
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


def addresses(stack: Stack, host: str, port: int, secret: dict[str, str] | None = None) -> Addresses:
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

    return Addresses(
        ledger=at(read_env(stack.root / "mlflow" / "server.env")["MLFLOW_BACKEND_STORE_URI"], "mlflow"),
        artefacts=stack.state / _ARTEFACTS,
        airflow=at(airflow, "airflow"),
        accounts=at(accounts["mlflow"]["database_uri"], "mlflow"),
    )

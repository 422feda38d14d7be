"""Where registry, accounts and Airflow's database are: named by hand, those of a stack, or files of the checkout."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.operations.backup.stack_places import ARTEFACTS, find_stack, running_databases
from pipelines.operations.stack.credentials import FILE
from pipelines.registry.settings import database, ledger_root

_AIRFLOW_URI = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@dataclass(frozen=True)
class Places:
    """What is backed up, or where it is put back: databases (SQLAlchemy addresses), folders, the checkout `root`.

    None: there is none, or it is kept elsewhere (artefacts in an object store). `credentials` is the file of a stack's
    passwords. `served`: the ledger names its artefacts through the MLflow server and not by their path, so that they
    may be put into another folder.
    """

    root: Path
    ledger: str | None = field(repr=False)
    artefacts: Path | None
    airflow: str | None = field(repr=False)
    accounts: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    served: bool = False

    def databases(self) -> dict[str, str]:
        """Return the addresses that there are, by the name that each database has in a backup."""
        given = {"mlflow": self.ledger, "accounts": self.accounts, "airflow": self.airflow}
        return {name: uri for name, uri in given.items() if uri}


@dataclass(frozen=True)
class Named:
    """What somebody named by hand: SQLAlchemy addresses and the folder of artefacts. It wins over what is found."""

    ledger: str | None = field(default=None, repr=False)
    artefacts: Path | None = None
    airflow: str | None = field(default=None, repr=False)
    accounts: str | None = field(default=None, repr=False)

    @classmethod
    def given(
        cls,
        ledger: str | None = None,
        artefacts: Path | None = None,
        airflow: str | None = None,
        accounts: str | None = None,
    ) -> Named:
        """Return what was given; Airflow's own variable names its database, too."""
        return cls(ledger, artefacts, airflow or os.environ.get(_AIRFLOW_URI), accounts)

    @property
    def whole(self) -> bool:
        """Whether both servers' databases are named, so that no stack is asked for one."""
        return bool(self.ledger and self.airflow)


def places_of(root: Path, named: Named | None = None, state: Path | None = None) -> Places:
    """Return what there is to back up in the checkout `root`.

    What is named by hand comes first, then the stack that was started in `state` (default: the checkout's own), then
    the files of the checkout. A ledger named by hand is never mixed with artefacts and accounts of the stack. Raises
    UserError where the stack is needed and its PostgreSQL does not run.
    """
    named = named or Named.given()
    here = _files(root, named, present=True)
    stack = None if named.whole else find_stack(root, state)
    if stack is None:
        return here
    found = running_databases(stack)
    return Places(
        root=here.root,
        ledger=named.ledger or found.ledger,
        artefacts=here.artefacts if named.ledger else named.artefacts or stack.state / ARTEFACTS,
        airflow=named.airflow or found.airflow,
        accounts=named.accounts or (None if named.ledger else found.accounts),
        credentials=stack.state / FILE,
        served=not named.ledger,
    )


def places_for(root: Path, named: Named | None = None) -> Places:
    """Return where a backup that is no stack's is put back: by hand or in the checkout, though nothing is there yet."""
    return _files(root, named or Named.given(), present=False)


def _files(root: Path, named: Named, *, present: bool) -> Places:
    home = ledger_root(root)
    scheduler = Path(os.environ.get("AIRFLOW_HOME") or home / "airflow").resolve() / "airflow.db"
    folder = home / "mlartifacts"

    def own(file: Path) -> str | None:
        return f"sqlite:///{file}" if file.is_file() or not present else None

    return Places(
        root=root.resolve(),
        ledger=named.ledger or own(database(root)),
        artefacts=named.artefacts or (folder if folder.is_dir() or not present else None),
        airflow=named.airflow or own(scheduler),
        accounts=named.accounts,
    )

"""Where the ledger and Airflow's database of this checkout are, unless somebody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.keeping.backup import Places
from pipelines.tracking.settings import database, ledger_root

_AIRFLOW_URI = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def places_of(
    root: Path, ledger: str | None = None, artefacts: Path | None = None, airflow: str | None = None
) -> Places:
    """Return what there is to back up: the SQLite ledger and artefact folder of the checkout, Airflow's database.

    `ledger` and `airflow` are SQLAlchemy addresses, `artefacts` the folder of the MLflow server. Airflow is found by
    its environment variable, in AIRFLOW_HOME, or in `airflow/` of the checkout.
    """
    return _places(root, ledger, artefacts, airflow, present=True)


def places_for(
    root: Path, ledger: str | None = None, artefacts: Path | None = None, airflow: str | None = None
) -> Places:
    """Return where a backup is put back: the places of `places_of`, though nothing is there any more."""
    return _places(root, ledger, artefacts, airflow, present=False)


def _places(root: Path, ledger: str | None, artefacts: Path | None, airflow: str | None, *, present: bool) -> Places:
    home = ledger_root(root)
    scheduler = Path(os.environ.get("AIRFLOW_HOME") or home / "airflow").resolve() / "airflow.db"
    folder = home / "mlartifacts"

    def own(file: Path) -> str | None:
        return f"sqlite:///{file}" if file.is_file() or not present else None

    return Places(
        root=root.resolve(),
        ledger=ledger or own(database(root)),
        artefacts=artefacts or (folder if folder.is_dir() or not present else None),
        airflow=airflow or os.environ.get(_AIRFLOW_URI) or own(scheduler),
    )

"""The place of the MLflow database and artefacts, shared by a checkout and its run workspaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines.core.formats.table import TRACKING, check_text
from pipelines.versions.places import EXPERIMENTS

EXPERIMENT = "dynamicid"
# The tag of the experiment that states the version of what the project records.
FORMAT_TAG = "dynamicid.format"
# A run workspace is a clone of another checkout; this variable names the checkout whose MLflow database it uses.
HOME_VARIABLE = "DYNAMICID_HOME"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_DEFAULTS: set[str] = set()


def tracking_root(root: Path) -> Path:
    """Return the checkout with the MLflow database: `root`, or the one whose workspace or experiment of DVC it is."""
    path = Path(os.environ.get(HOME_VARIABLE) or root).resolve()
    inside = (home for home in path.parents if path.is_relative_to(home / EXPERIMENTS))
    return next(inside, path)


def database(root: Path) -> Path:
    """Return the path of the SQLite database used when MLFLOW_TRACKING_URI is not set."""
    return tracking_root(root) / "mlflow.db"


def check_records(experiment: Any, place: str) -> None:
    """Raise UserError where a newer program records in the `experiment` at `place`."""
    check_text(TRACKING, place, experiment.tags.get(FORMAT_TAG))


def sqlite_uri(file: Path) -> str:
    """Return the SQLAlchemy address of a SQLite database.

    It holds the path as it is wherever SQLAlchemy reads it back so; else with percent signs.
    """
    from sqlalchemy.engine import URL, make_url

    address = URL.create("sqlite", database=str(file))
    plain = address.set(database="").render_as_string() + str(file)
    return plain if make_url(plain) == address else _with_driver(address.render_as_string())


def _with_driver(uri: str) -> str:
    """Return the address of a SQLite database with its driver: else MLflow makes a folder by its text, undecoded."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    is_text = uri.startswith("sqlite:///") and (path.startswith("file:") or "%" in path)
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1) if is_text else uri


def own_uri(root: Path) -> str:
    """Return the tracking URI of the database of `root`, used when MLFLOW_TRACKING_URI is not set."""
    return sqlite_uri(database(root))


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI where the user has set it, otherwise the checkout's own database."""
    own, given = own_uri(root), os.environ.get(_URI_VARIABLE)
    # MLflow sets the variable itself, so a default of an earlier call must not count as given by the user.
    uri = _with_driver(given) if given and given not in _DEFAULTS else own
    if uri == own:
        _DEFAULTS.add(own)
    return uri

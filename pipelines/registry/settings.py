"""The place of the MLflow database and artefacts, shared by a checkout and its run workspaces."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.core.formats.table import TRACKING, check_text

EXPERIMENT = "dynamicid"
# The tag of the experiment that states the version of what the project records.
FORMAT_TAG = "dynamicid.format"
# A run workspace is a clone of another checkout; this variable names the checkout whose MLflow database it uses.
HOME_VARIABLE = "DYNAMICID_HOME"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_DEFAULTS: set[str] = set()


def tracking_root(root: Path) -> Path:
    """Return the checkout with the MLflow database: `root`, or the one that a workspace was cloned from."""
    return Path(os.environ.get(HOME_VARIABLE) or root).resolve()


def database(root: Path) -> Path:
    """Return the path of the SQLite database used when MLFLOW_TRACKING_URI is not set."""
    return tracking_root(root) / "mlflow.db"


def check_records(experiment: Any, place: str) -> None:
    """Raise UserError where a newer program records in the `experiment` at `place`."""
    check_text(TRACKING, place, experiment.tags.get(FORMAT_TAG))


def sqlite_uri(file: Path) -> str:
    """Return the SQLAlchemy address of a SQLite database.

    It holds the path as it is wherever SQLAlchemy reads it back so; else with percent signs, for which MLflow makes an
    empty folder of that name (see `connect`).
    """
    from sqlalchemy.engine import URL, make_url

    address = URL.create("sqlite", database=str(file))
    plain = address.set(database="").render_as_string() + str(file)
    return plain if make_url(plain) == address else address.render_as_string()


def own_uri(root: Path) -> str:
    """Return the tracking URI of the database of `root`, used when MLFLOW_TRACKING_URI is not set."""
    return sqlite_uri(database(root))


def connect(root: Path) -> str:
    """Point MLflow to its database or server, create the experiment if it is missing, and return the tracking URI.

    The URI is MLFLOW_TRACKING_URI where it is set, otherwise a SQLite database in the checkout. Waits for a server that
    does not answer. A database that came here with its checkout is made to name the artefacts beside it.
    Raises UserError for one in which a newer program records.
    """
    import mlflow

    from pipelines.registry.relocation import ARTEFACTS, bring_home
    from pipelines.registry.server import wait_for_server

    own = own_uri(root)
    given = os.environ.get(_URI_VARIABLE)
    # set_tracking_uri sets the variable, so a default of an earlier call must not count as given by the user.
    uri = given if given and given not in _DEFAULTS else own
    if uri == own:
        _DEFAULTS.add(own)
    mlflow.set_tracking_uri(uri)
    wait_for_server(uri)
    if uri == own:
        bring_home(database(root), EXPERIMENT)
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        check_records(experiment, str(database(root)) if uri == own else "MLflow's server")
    else:
        location = (tracking_root(root) / ARTEFACTS).as_uri() if uri == own else None
        try:
            mlflow.create_experiment(EXPERIMENT, artifact_location=location, tags={FORMAT_TAG: str(TRACKING.version)})
        except mlflow.exceptions.MlflowException:
            # Another run may have created it at the same time.
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                raise
    mlflow.set_experiment(EXPERIMENT)
    if uri == own and (encoded := Path(own.removeprefix("sqlite:///")).parent) != database(root).parent:
        with suppress(OSError):
            os.removedirs(encoded)  # MLflow makes it before it decodes the address; removed only while it is empty
    return uri

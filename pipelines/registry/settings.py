"""Where the ledger lies: one MLflow database and artefact folder, shared by a checkout and its run workspaces."""

from __future__ import annotations

import os
from pathlib import Path

EXPERIMENT = "dynamicid"
# A run workspace is a clone inside another checkout; this variable names the checkout whose ledger it writes to.
HOME_VARIABLE = "DYNAMICID_HOME"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_CHOSEN: set[str] = set()


def tracking_root(root: Path) -> Path:
    """Return the checkout that holds the ledger: `root`, or the one that a workspace was made from."""
    return Path(os.environ.get(HOME_VARIABLE) or root).resolve()


def database(root: Path) -> Path:
    """Return the path of the SQLite database used when MLFLOW_TRACKING_URI is not set."""
    return tracking_root(root) / "mlflow.db"


def connect(root: Path) -> str:
    """Point MLflow to the ledger and make sure that the experiment exists; return the tracking URI.

    MLFLOW_TRACKING_URI wins, so that a team's server is used as it is; otherwise a SQLite database in the checkout.
    A server that is away is waited for.
    """
    import mlflow

    from pipelines.registry.server import wait_for_server

    own = f"sqlite:///{database(root)}"
    given = os.environ.get(_URI_VARIABLE)
    # set_tracking_uri writes the variable itself: an address that this function chose before is not one that was given.
    uri = given if given and given not in _CHOSEN else own
    if uri == own:
        _CHOSEN.add(own)
    mlflow.set_tracking_uri(uri)
    wait_for_server(uri)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        location = (tracking_root(root) / "mlartifacts").as_uri() if uri == own else None
        try:
            mlflow.create_experiment(EXPERIMENT, artifact_location=location)
        except mlflow.exceptions.MlflowException:
            # Two runs may create it at once; the second one finds it there.
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                raise
    mlflow.set_experiment(EXPERIMENT)
    return uri

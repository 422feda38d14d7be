"""The boundary to MLflow, whose database is somebody else's: every call of this project goes through here.

A call waits while server or database are away, and what is wrong becomes one line. The registry has no compare-and-set,
so callers read before they write, and write so that a call that is repeated changes nothing.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pipelines.core.errors import UserError
from pipelines.core.formats.table import TRACKING
from pipelines.registry.faults import TrackingFault, fault_of
from pipelines.registry.relocation import ARTEFACTS, bring_home
from pipelines.registry.schema import prepare
from pipelines.registry.server import check_artefacts, patiently, place_of, wait_for_server
from pipelines.registry.settings import (
    EXPERIMENT,
    FORMAT_TAG,
    check_records,
    database,
    own_uri,
    tracking_root,
    tracking_uri,
)

Answer = TypeVar("Answer")
# By this tag MLflow's page shows trainings; where it is missing, it guesses, often conversations of language models.
_KIND = "mlflow.experimentKind"
# MLflow's client would wait by itself, without a word; the boundary does it. It would also draw bars for every file and
# print two addresses for every run that ends.
_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracking:
    """MLflow's client with `ask` around every method; `home` is the checkout whose MLflow database it uses."""

    def __init__(self, home: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.home = home
        self.plain = MlflowClient()
        self._takes_files = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.plain, name)
        return functools.partial(ask, method) if callable(method) else method

    def experiment_id(self) -> str:
        """Return the id of the project's experiment; raise UserError if it is deleted or MLflow takes no files."""
        experiment = self.get_experiment_by_name(EXPERIMENT)
        if experiment.lifecycle_stage == "deleted":
            uri = self.plain.tracking_uri
            raise UserError(
                f"{place_of(uri)}: somebody deleted the experiment {EXPERIMENT}, so nothing is recorded; "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}` brings it back with its runs "
                "(`mlflow gc` removes it for good, then a new one is made)"
            )
        if not self._takes_files:
            check_artefacts(self.plain.tracking_uri, experiment.artifact_location)
            self._takes_files = True
            if experiment.tags.get(_KIND, "_inferred").endswith("_inferred"):
                with suppress(TrackingFault):
                    self.set_experiment_tag(experiment.experiment_id, _KIND, "custom_model_development")
        return str(experiment.experiment_id)


def connect(root: Path) -> str:
    """Point MLflow to its database or server, create the experiment if it is missing, and return the tracking URI.

    The URI is MLFLOW_TRACKING_URI where it is set, otherwise a SQLite database in the checkout. Waits for a server or
    database that does not answer. A database that came here with its checkout is made to name the artefacts beside it.
    An experiment that somebody deleted stays so: only `experiment_id` asks for it.
    Raises UserError for one in which a newer program records.
    """
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its errors come as exceptions, too
    uri = tracking_uri(root)
    mlflow.set_tracking_uri(uri)
    wait_for_server(uri)
    ask(prepare, uri)
    own = uri == own_uri(root)
    if own:
        ask(bring_home, database(root), EXPERIMENT)
    experiment = ask(mlflow.get_experiment_by_name, EXPERIMENT)
    if experiment is not None:
        check_records(experiment, str(database(root)) if own else "MLflow's server")
    else:
        location = (tracking_root(root) / ARTEFACTS).as_uri() if own else None
        tags = {FORMAT_TAG: str(TRACKING.version)}
        try:
            ask(mlflow.create_experiment, EXPERIMENT, artifact_location=location, tags=tags)
        except TrackingFault:
            # Another run may have created it at the same time.
            if ask(mlflow.get_experiment_by_name, EXPERIMENT) is None:
                raise
    if experiment is None or experiment.lifecycle_stage == "active":
        ask(mlflow.set_experiment, EXPERIMENT)
    return uri


def open_tracking(root: Path) -> Tracking:
    """Connect, and return the client."""
    connect(root)
    return Tracking(tracking_root(root))


def ask(call: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
    """Return what a call to MLflow returns; wait and repeat it while server or database are away.

    Raises StageFailed where they stay away, and in place of MLflow's errors; TrackingFault where MLflow refuses.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    try:
        return patiently(uri, functools.partial(call, *arguments, **named))
    except Exception as error:
        fault = fault_of(error, place_of(uri))
        if fault is error:
            raise
        raise fault from error


def make(create: Callable[[], Answer], find: Callable[[], Answer | None]) -> Answer:
    """Return what `create` makes; where the answer got lost and it is repeated, first `find` what is made already."""
    attempts = itertools.count()

    def once() -> Answer:
        made = find() if next(attempts) else None
        return create() if made is None else made

    return ask(once)

"""A registry of its own for every test: a real MLflow on SQLite, in a repository with a commit."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with nothing in it but the experiment: its tables take longer to make than a test does."""
    from pipelines.tracking.settings import connect, database

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
            patch.delenv(name, raising=False)
        root = tmp_path_factory.mktemp("ledger")
        connect(root)
        return database(root)


@pytest.fixture
def ledger(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository whose ledger is a new database beside it."""
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_AIRFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy2(empty_database, root / "mlflow.db")
    (root / ".gitignore").write_text("/mlflow.db*\n/.dynamicid/\n")
    (root / "README").write_text("a checkout\n")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command], cwd=root, check=True)
    return root


@pytest.fixture
def compared(ledger: Path) -> Callable[..., Any]:
    """Make a version that the gates have judged: (champion it was compared with, lines of failed gates) → version."""
    from mlflow.exceptions import MlflowException

    from pipelines.tracking.decisions import Decision, add_decision
    from pipelines.tracking.registry import open_registry

    client = open_registry(ledger)

    def make(champion: str | None, *failed: str) -> Any:
        with contextlib.suppress(MlflowException):
            client.create_registered_model("dynamicid")
        version = client.create_model_version("dynamicid", (ledger / "README").as_uri())
        evidence = {"evaluation_set": "e", "failed_gates": list(failed), "gates": []}
        add_decision(client, version, Decision("not_asked", "gates", champion, tuple(failed), evidence))
        return client.get_model_version("dynamicid", version.version)

    return make

"""Configured addresses take precedence over a stack, and a stack over files of the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.backup.locations import Addresses, find_locations
from pipelines.operations.stack.settings import save_ports, stack_in


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an MLflow database and no stack."""
    for name in ("DYNAMICID_HOME", "AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlflow.db").touch()
    return tmp_path


def test_without_a_stack_it_is_the_checkout(checkout: Path) -> None:
    found = find_locations(checkout, Addresses())
    assert found.databases() == {"mlflow": f"sqlite:///{checkout / 'mlflow.db'}"}
    assert (found.credentials, found.served) == (None, False)
    with pytest.raises(UserError, match="no stack was started there"):
        find_locations(checkout, Addresses(), checkout / "nowhere")


def test_a_started_stack_must_run_unless_both_databases_are_named(checkout: Path) -> None:
    stack = stack_in(checkout / ".dynamicid" / "stack", started=False)
    stack.state.mkdir(parents=True)
    save_ports(stack)
    for named in (Addresses(), Addresses(ledger="sqlite:///ledger.db"), Addresses(airflow="sqlite:///airflow.db")):
        with pytest.raises(UserError, match=r"PostgreSQL of this stack does not run.*`make stack` starts it"):
            find_locations(checkout, named)
    whole = find_locations(checkout, Addresses("sqlite:///ledger.db", None, "sqlite:///airflow.db"))
    assert whole.databases() == {"mlflow": "sqlite:///ledger.db", "airflow": "sqlite:///airflow.db"}
    assert whole.credentials is None

"""What is named by hand is never taken from a stack, and a stack that is named is never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.backup.places import Addresses, places_of
from pipelines.operations.stack.settings import keep_ports, stack_in


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger of its own, and no stack."""
    for name in ("DYNAMICID_HOME", "AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlflow.db").touch()
    return tmp_path


def test_without_a_stack_it_is_the_checkout(checkout: Path) -> None:
    found = places_of(checkout, Addresses())
    assert found.databases() == {"mlflow": f"sqlite:///{checkout / 'mlflow.db'}"}
    assert (found.credentials, found.served) == (None, False)
    with pytest.raises(UserError, match="no stack was started there"):
        places_of(checkout, Addresses(), checkout / "nowhere")


def test_a_stack_that_was_started_is_needed_where_something_is_not_named(checkout: Path) -> None:
    stack = stack_in(checkout / ".dynamicid" / "stack", started=False)
    stack.state.mkdir(parents=True)
    keep_ports(stack)
    for named in (Addresses(), Addresses(ledger="sqlite:///ledger.db"), Addresses(airflow="sqlite:///airflow.db")):
        with pytest.raises(UserError, match=r"PostgreSQL of this stack does not run.*`make stack` starts it"):
            places_of(checkout, named)
    whole = places_of(checkout, Addresses("sqlite:///ledger.db", None, "sqlite:///airflow.db"))
    assert whole.databases() == {"mlflow": "sqlite:///ledger.db", "airflow": "sqlite:///airflow.db"}
    assert whole.credentials is None

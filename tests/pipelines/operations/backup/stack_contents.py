"""Write entries into every database of a stack, or read them: `python stack_contents.py fill|read LEDGER`.

Runs in the stack's environment. LEDGER is the address of the MLflow server or, if none runs, of its database; then the
artefact is written and read in the server's folder. Both actions print the entries as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ADAPTER = b"\x00weights\xff" * 1000
ACCOUNT, PASSWORD = "ada", "a-password-of-hers"


def artefact(uri: str) -> Path:
    """Return the server's file for an artefact with the address mlflow-artifacts:/…"""
    return Path(os.environ["MLFLOW_ARTIFACTS_DESTINATION"], uri.removeprefix("mlflow-artifacts:/"))


def fill(client: Any, *, served: bool) -> None:
    # A server chooses the location itself.
    experiment = client.create_experiment("faces", artifact_location=None if served else "mlflow-artifacts:/1")
    run = client.create_run(experiment, tags={"stage": "train_imr"}, run_name="first")
    for step in range(3):
        client.log_metric(run.info.run_id, "id_similarity", 0.25 * step, step=step, timestamp=1)
    client.log_param(run.info.run_id, "steps", 3)
    if served:
        own = Path(os.environ["STACK_STATE"], "adapter.bin")
        own.write_bytes(ADAPTER)
        client.log_artifact(run.info.run_id, str(own))
    else:
        file = artefact(f"{run.info.artifact_uri}/adapter.bin")
        file.parent.mkdir(parents=True)
        file.write_bytes(ADAPTER)
    client.create_registered_model("dynamicid")
    version = client.create_model_version("dynamicid", f"{run.info.artifact_uri}/adapter.bin", run.info.run_id)
    client.set_registered_model_alias("dynamicid", "champion", version.version)
    client.set_model_version_tag("dynamicid", version.version, "dynamicid.decision.1", '{"decision": "promoted"}')
    accounts().create_user(ACCOUNT, PASSWORD)
    fill_airflow()


def fill_airflow() -> None:
    from airflow.models import Connection, DagRun, Pool, Variable
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    Variable.set("greeting", "hello")  # encrypted with the key in credentials.env
    Pool.create_or_update_pool("ovens", 3, "of this test", include_deferred=False)
    day = datetime(2026, 1, 2, tzinfo=UTC)
    with create_session() as session:
        session.add(Connection(conn_id="store", conn_type="http", login="ada", password="secret"))
        session.add(
            DagRun(
                dag_id="dynamicid_train",
                run_id="by-hand",
                run_type=DagRunType.MANUAL,
                logical_date=day,
                run_after=day,
                state=DagRunState.SUCCESS,
                conf={"steps": 4},
                triggered_by=DagRunTriggeredByType.TEST,
            )
        )


def read(client: Any, *, served: bool) -> dict[str, Any]:
    version = client.get_model_version_by_alias("dynamicid", "champion")
    run = client.get_run(version.run_id)
    if served:
        kept = Path(client.download_artifacts(version.run_id, "adapter.bin", os.environ["STACK_STATE"])).read_bytes()
    else:
        kept = artefact(f"{run.info.artifact_uri}/adapter.bin").read_bytes()
    return {
        "metrics": [(m.step, m.value) for m in client.get_metric_history(version.run_id, "id_similarity")],
        "params": run.data.params,
        "stage": run.data.tags["stage"],
        "version": (str(version.version), dict(version.tags)),
        "artefact": kept == ADAPTER == artefact(f"{run.info.artifact_uri}/adapter.bin").read_bytes(),
        "account": (
            accounts().authenticate_user(ACCOUNT, PASSWORD),
            accounts().authenticate_user(ACCOUNT, "a-password-of-others"),
        ),
        **read_airflow(),
    }


def read_airflow() -> dict[str, Any]:
    from airflow.models import Connection, DagRun, Pool, Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        variable = session.query(Variable).filter_by(key="greeting").one()
        run = session.query(DagRun).filter_by(dag_id="dynamicid_train", run_id="by-hand").one()
        return {
            "variable": (variable.get_val(), variable.is_encrypted),
            "connection": session.query(Connection).filter_by(conn_id="store").one().password,
            "pool": session.query(Pool).filter_by(pool="ovens").one().slots,
            "run": (run.state, run.conf),
        }


EXPECTED = {
    "metrics": [[0, 0.0], [1, 0.25], [2, 0.5]],
    "params": {"steps": "3"},
    "stage": "train_imr",
    "version": ["1", {"dynamicid.decision.1": '{"decision": "promoted"}'}],
    "artefact": True,
    "account": [True, False],
    "variable": ["hello", True],
    "connection": "secret",
    "pool": 3,
    "run": ["success", {"steps": 4}],
}


def accounts() -> Any:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(f"postgresql+psycopg2://mlflow:{os.environ['MLFLOW_DB_PASSWORD']}@/mlflow_auth")
    return store


def main(action: str, ledger: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(ledger, ledger)
    served = ledger.startswith("http")
    if action == "fill":
        fill(client, served=served)
    print(json.dumps(read(client, served=served)))


if __name__ == "__main__":
    main(*sys.argv[1:])

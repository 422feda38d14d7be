"""MLflow's accounts: the pipeline writes under a name of its own, not as the administrator."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.core.errors import StageFailed
from pipelines.operations.stack.health import ask
from pipelines.operations.stack.settings import PIPELINE_USER


def make_pipeline_account(url: str, secret: Mapping[str, str], administrator: str = "admin") -> bool:
    """Make sure that MLflow knows the pipeline's account; return whether it is new.

    Raises StageFailed where the server answers neither yes nor "there already".
    """
    code, body = ask(
        "POST",
        f"{url}/api/2.0/mlflow/users/create",
        json={"username": PIPELINE_USER, "password": secret["MLFLOW_TRACKING_PASSWORD"]},
        auth=(administrator.encode(), secret["MLFLOW_AUTH_ADMIN_PASSWORD"].encode()),
    )
    if code == 200:
        return True
    if b"RESOURCE_ALREADY_EXISTS" in body:
        return False
    raise StageFailed(f"{url}: the account {PIPELINE_USER} could not be made (HTTP {code}: {body[:200].decode()})")

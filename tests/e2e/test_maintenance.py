"""A service is restarted; a stack whose supervisor was killed starts again without losses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]


def test_a_service_is_restarted(team) -> None:
    from pipelines.operations.stack.health import wait_healthy

    before = team.pids()
    team.cli("stack", "service", "restart", "mlflow")
    wait_healthy(team.stack, 300)
    after = team.pids()
    assert {name for name in before if before[name] != after[name]} == {"mlflow"}
    assert team.client().search_experiments()


def test_tasks_are_not_given_the_administrators_passwords(team) -> None:
    pids, secret = team.pids(), team.secret
    for name in ("airflow-scheduler", "airflow-triggerer", "airflow-dag-processor"):
        given = Path(f"/proc/{pids[name]}/environ").read_bytes()
        assert secret["MLFLOW_TRACKING_PASSWORD"].encode() in given, "the pipeline's own account"
        for key in ("POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "AIRFLOW_ADMIN_PASSWORD", "MLFLOW_DB_PASSWORD"):
            assert secret[key].encode() not in given, (name, key)
    given = Path(f"/proc/{pids['mlflow']}/environ").read_bytes()
    assert secret["AIRFLOW__CORE__FERNET_KEY"].encode() not in given


def test_the_documented_lines_select_the_server(team) -> None:
    """Run the lines of docs/guides/retrain.md with this stack's folder and port."""
    text = (team.home / "docs" / "guides" / "retrain.md").read_text()
    (lines,) = (block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "credentials.env" in block)
    lines = lines.replace(".dynamicid/stack", str(team.state)).replace(
        "http://127.0.0.1:5000", team.addresses["mlflow"]
    )
    ask = f'"{sys.executable}" -m pipelines.cli lineage models:/dynamicid@champion'
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    typed = ["bash", "-c", f"{lines}\n{ask}"]
    done = subprocess.run(typed, cwd=team.home, env=clean, capture_output=True, text=True, check=True)
    assert "promoted by " in done.stderr, "the decision is in that server's registry"


def test_a_killed_supervisor_is_replaced_with_all_its_services(team) -> None:
    from pipelines.operations.stack.supervisor import has_processes, is_running, proxy

    stack = team.stack
    known = {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    versions = {version.version for version in team.client().search_model_versions("name = 'dynamicid'")}
    old = team.pids()
    os.kill(proxy(stack).supervisor.getPID(), signal.SIGKILL)
    assert not is_running(stack)
    assert has_processes(stack)
    team.cli("stack", "start")
    team.cli("stack", "status")
    assert set(old.values()).isdisjoint(team.pids().values())
    assert not [pid for pid in old.values() if Path(f"/proc/{pid}").exists()]
    team.airflow.log_in()
    lost = known - {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    lost |= versions - {version.version for version in team.client().search_model_versions("name = 'dynamicid'")}
    print(f"supervisor killed: all services replaced; runs and versions lost: {len(lost)} of {len(known | versions)}")
    assert (known | versions, lost) != (set(), set())
    assert not lost

"""Services restarted by hand, and a stack whose supervisor was killed: everything is there again. Runs last."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]


def _stack(team):
    from pipelines.stack.settings import Stack, known_ports

    return Stack(team.home, team.state, known_ports(team.state))


def _pids(stack) -> dict[str, int]:
    from pipelines.stack.supervisor import proxy

    return {info["name"]: info["pid"] for info in proxy(stack).supervisor.getAllProcessInfo()}


def test_a_service_is_restarted(team) -> None:
    from pipelines.stack.health import wait_healthy

    stack = _stack(team)
    before = _pids(stack)
    team.cli("stack", "service", "restart", "mlflow")
    wait_healthy(stack, 300)
    after = _pids(stack)
    assert {name for name in before if before[name] != after[name]} == {"mlflow"}
    assert team.client().search_experiments()


def test_a_killed_supervisor_is_replaced_and_nothing_of_the_old_one_stays(team) -> None:
    from pipelines.stack.supervisor import is_running, left_over, proxy

    stack = _stack(team)
    known = {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    versions = {version.version for version in team.client().search_model_versions("name = 'dynamicid'")}
    old = _pids(stack)
    os.kill(proxy(stack).supervisor.getPID(), signal.SIGKILL)
    assert not is_running(stack)
    assert left_over(stack)
    team.cli("stack", "start")
    team.cli("stack", "status")
    assert set(old.values()).isdisjoint(_pids(stack).values())
    assert not [pid for pid in old.values() if Path(f"/proc/{pid}").exists()]
    team.airflow.log_in()
    lost = known - {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    lost |= versions - {version.version for version in team.client().search_model_versions("name = 'dynamicid'")}
    print(f"supervisor killed: all services replaced; runs and versions lost: {len(lost)} of {len(known | versions)}")
    assert (known | versions, lost) != (set(), set())
    assert not lost

"""A person logs in, fills the form, watches the grid turn green, and finds the model in MLflow: all in a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from browser import browser

pytestmark = [pytest.mark.stack, pytest.mark.timeout(7200)]
RUN = "by-hand-in-the-browser"


def _log_in(page, team) -> None:
    page.goto(team.addresses["airflow"])
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", team.secret["AIRFLOW_ADMIN_PASSWORD"])
    page.keyboard.press("Enter")
    page.get_by_text("Welcome").first.wait_for()


def test_a_wrong_password_lets_nobody_in(team) -> None:
    import requests

    for url, answer in (
        (
            f"{team.addresses['airflow']}/auth/token",
            lambda url: requests.post(url, json={"username": "admin", "password": "admin"}, timeout=60),
        ),
        (
            f"{team.addresses['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1",
            lambda url: requests.get(url, auth=("admin", "password1234"), timeout=60),
        ),
        (f"{team.addresses['airflow']}/api/v2/dags", lambda url: requests.get(url, timeout=60)),
        (
            f"{team.addresses['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1",
            lambda url: requests.get(url, timeout=60),
        ),
    ):
        assert answer(url).status_code == 401, url


@pytest.fixture(scope="module")
def finished(team, pictures: Path) -> dict:
    """Trigger a run in the browser, answer what it asks, and wait until every task is green."""
    name = f"{RUN}-{time.time_ns()}"
    with browser() as page:
        _log_in(page, team)
        page.screenshot(path=pictures / "1-logged-in.png")
        page.goto(f"{team.addresses['airflow']}/dags/dynamicid_train")
        page.get_by_role("button", name="Trigger").first.click()
        page.fill("input[name=element_identities]", "8")
        page.fill("input[name=element_anchoring_steps]", "3")
        page.fill("input[name=element_imr_steps]", "3")
        page.locator("input[name=element_human_decision]").locator("xpath=..").click()
        page.get_by_text("Advanced Options").click()
        page.fill("input[name=dagRunId]", name)
        page.screenshot(path=pictures / "2-form.png")
        page.get_by_role("button", name="Trigger").last.click()
        page.wait_for_timeout(3000)
        page.goto("about:blank")  # the grid is drawn again every few seconds: not while the run needs the cores
        team.airflow.wait_for_task("dynamicid_train", name, "ask_a_person", {"awaiting_input", "deferred"}, 1500)
        page.goto(f"{team.addresses['airflow']}/dags/dynamicid_train/runs/{name}/tasks/ask_a_person/required_actions")
        page.get_by_role("button", name="Promote though gates failed").wait_for()
        page.screenshot(path=pictures / "3-question.png")
        page.get_by_role("button", name="Promote though gates failed").click()
        assert team.airflow.wait("dynamicid_train", name, 600) == "success"
        page.goto(f"{team.addresses['airflow']}/dags/dynamicid_train/runs/{name}")
        page.get_by_text("Success").first.wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=pictures / "4-green.png")
    return {"run": name, "states": team.airflow.states("dynamicid_train", name)}


def test_every_task_is_green(finished: dict) -> None:
    assert len(finished["states"]) == 15
    assert set(finished["states"].values()) == {"success"}


def test_what_the_form_said_is_what_was_done(team, finished: dict) -> None:
    import yaml

    folder = team.workspace("dynamicid_train", finished["run"])
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["train_anchoring"]["steps"] == params["train_imr"]["steps"] == 3
    assert len([one for one in (folder / ".dynamicid" / "photos").iterdir() if one.is_dir()]) == 8


def test_the_decision_bears_the_name_of_who_took_it(team, finished: dict) -> None:
    folder = team.workspace("dynamicid_train", finished["run"])
    registered = json.loads((folder / ".dynamicid" / "registration.json").read_text().splitlines()[-1])
    version = team.client().get_model_version(registered["model_name"], registered["version"])
    decisions = [json.loads(text) for key, text in sorted(version.tags.items()) if "dynamicid.decision." in key]
    assert decisions[-1]["decision"] == "promoted"
    assert decisions[-1]["by"] == "admin"
    assert "champion" in version.aliases


def test_mlflow_shows_run_metrics_pictures_and_alias(team, finished: dict, pictures: Path) -> None:
    client = team.client()
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    runs = client.search_runs([experiment], "tags.`dynamicid.stage` = 'evaluate'", max_results=50)
    run = next(run for run in runs if any(finished["run"] in value for value in run.data.tags.values()))
    assert "id_similarity" in run.data.metrics
    account = {"username": "admin", "password": team.secret["MLFLOW_AUTH_ADMIN_PASSWORD"]}
    base = team.addresses["mlflow"]
    with browser(http_credentials=account) as page:
        page.goto(f"{base}/#/experiments/{experiment}/runs/{run.info.run_id}")
        page.get_by_text("id_similarity").first.wait_for()
        page.screenshot(path=pictures / "5-mlflow-metrics.png")
        page.goto(f"{base}/#/experiments/{experiment}/runs/{run.info.run_id}/artifacts")
        page.get_by_text("index.html").first.click()
        page.wait_for_timeout(5000)
        page.screenshot(path=pictures / "6-mlflow-pictures.png")
        page.goto(f"{base}/#/models/dynamicid")
        page.get_by_text("champion").first.wait_for()
        page.screenshot(path=pictures / "7-mlflow-champion.png")
    assert all((pictures / name).stat().st_size > 10_000 for name in ("5-mlflow-metrics.png", "6-mlflow-pictures.png"))

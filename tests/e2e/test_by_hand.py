"""In a browser: log in, fill in the form, see every task succeed, and find the model in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from browser import browser

from tests.processes import free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(7200)]
RUN = "by-hand-in-the-browser"
# The tasks of dynamicid_train that are no stages.
OTHER_TASKS = [
    "plan",
    "workspace",
    "ingest",
    "doctor",
    "drift",
    "save_run",
    "register",
    "person_asked",
    "ask_a_person",
    "decide",
]
# Read from a canvas, because computed styles give colours in different notations.
_DRAWN_COLOURS = """squares => squares.map(square => {
  const pixel = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d");
  pixel.fillStyle = getComputedStyle(square).backgroundColor;
  pixel.fillRect(0, 0, 1, 1);
  return [...pixel.getImageData(0, 0, 1, 1).data];
})"""


def _log_in(page, team) -> None:
    page.goto(team.addresses["airflow"])
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", team.secret["AIRFLOW_ADMIN_PASSWORD"])
    page.keyboard.press("Enter")
    page.get_by_text("Welcome").first.wait_for()


def test_a_wrong_password_is_refused(team) -> None:
    import requests

    airflow = team.addresses["airflow"]
    experiments = f"{team.addresses['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1"
    wrong = {"username": "admin", "password": "admin"}
    answers = (
        requests.post(f"{airflow}/auth/token", json=wrong, timeout=60),
        requests.get(f"{airflow}/api/v2/dags", timeout=60),
        requests.get(experiments, auth=("admin", "password1234"), timeout=60),
        requests.get(experiments, timeout=60),
    )
    assert [answer.status_code for answer in answers] == [401] * 4


@pytest.fixture(scope="module")
def finished(team, pictures: Path) -> dict:
    """Trigger a run in the browser, answer its question, and wait for its end."""
    from playwright.sync_api import expect

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
        page.goto("about:blank")  # the page redraws its grid every few seconds, which would take CPU time from the run
        team.airflow.wait_for_task("dynamicid_train", name, "ask_a_person", {"awaiting_input", "deferred"}, 1500)
        page.goto(f"{team.addresses['airflow']}/dags/dynamicid_train/runs/{name}/tasks/ask_a_person/required_actions")
        page.get_by_role("button", name="Promote though gates failed").wait_for()
        page.screenshot(path=pictures / "3-question.png")
        page.get_by_role("button", name="Promote though gates failed").click()
        assert team.airflow.wait("dynamicid_train", name, 600) == "success"
        page.goto(f"{team.addresses['airflow']}/dags/dynamicid_train/runs/{name}")
        states = page.get_by_test_id("table-cell-state")
        expect(states).to_have_text(["Success"] * len(team.airflow.tasks("dynamicid_train", name)), timeout=60_000)
        squares = page.locator(f"[data-testid^='grid-{name}-'] [data-testid='task-state-badge']")
        colours = squares.evaluate_all(_DRAWN_COLOURS)
        page.screenshot(path=pictures / "4-green.png")
    return {"run": name, "states": team.airflow.states("dynamicid_train", name), "colours": colours}


def test_every_task_is_green(project: Path, finished: dict) -> None:
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    assert set(finished["states"]) == {*stages, *OTHER_TASKS}
    assert set(finished["states"].values()) == {"success"}
    assert len(finished["colours"]) == len(finished["states"])
    for red, green, blue, _ in finished["colours"]:
        assert green > 2 * max(red, blue), finished["colours"]


def test_the_run_uses_the_values_of_the_form(team, finished: dict) -> None:
    folder = team.workspace("dynamicid_train", finished["run"])
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["train_anchoring"]["steps"] == params["train_imr"]["steps"] == 3
    assert len([one for one in (folder / ".dynamicid" / "demo").iterdir() if one.is_dir()]) == 8


def test_the_decision_has_the_name_of_the_user(team, finished: dict) -> None:
    registered = team.airflow.result("dynamicid_train", finished["run"], "register")
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
        report = page.frame_locator("iframe").first
        report.locator("img").first.wait_for()
        widths = report.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        page.screenshot(path=pictures / "6-mlflow-pictures.png")
        page.goto(f"{base}/#/models/dynamicid")
        page.get_by_text("champion").first.wait_for()
        page.screenshot(path=pictures / "7-mlflow-champion.png")
    assert len(widths) > 10
    assert min(widths) >= 64, "every picture of the report is there"


def test_the_champion_draws_on_the_page(
    team, finished: dict, pictures: Path, drawn_people: list[Path], tmp_path: Path
) -> None:
    """The page loads the promoted version from the registry and draws a picture from an uploaded photo."""
    from playwright.sync_api import expect

    assert set(finished["states"].values()) == {"success"}
    command = [sys.executable, "-m", "pipelines.cli", "app", "--adapter", "models:/dynamicid@champion"]
    command += ["--port", str(free_port())]
    with (tmp_path / "log").open("w") as log:
        served = subprocess.Popen(
            command, cwd=team.home, env=team.environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert served.stdout is not None
        line = served.stdout.readline()
        assert line, (tmp_path / "log").read_text()[-3000:]
        printed = json.loads(line)
        with browser() as page:
            page.goto(printed["url"])
            expect(page.locator("#head")).to_contain_text("dynamicid", timeout=60_000)
            page.locator("#photo-1 input[type=file]").set_input_files(str(drawn_people[0]))
            expect(page.locator("#photo-1 img").first).to_be_visible(timeout=60_000)
            page.locator("#prompt textarea").fill("a photo of a person wearing a red t-shirt, blue background")
            page.locator("#draw").click()
            drawn = page.locator("#picture img").first
            expect(drawn).to_be_visible(timeout=180_000)
            assert drawn.evaluate("image => image.naturalWidth") == 64
            page.screenshot(path=pictures / "8-page.png")
    finally:
        served.terminate()
        served.wait(60)
    assert "dynamicid" in printed["model"], printed

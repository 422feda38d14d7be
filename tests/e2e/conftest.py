"""The servers of the end-to-end tests: started for the tests, or those already running for a checkout."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from airflow_api import ENDED, Airflow

from pipelines.core.errors import UserError
from pipelines.operations.stack.postgres import find_programs
from tests.processes import SMALL_CHAIN, dynamicid, free_port, git, wait_until

# The checkout whose running stack (state in .dynamicid/stack) is used; if unset, a stack is started for the tests.
HOME = "DYNAMICID_E2E_HOME"
SECONDS = 1500


@dataclass(frozen=True)
class Team:
    """A checkout and its servers."""

    home: Path
    state: Path
    airflow: Airflow
    addresses: dict[str, str]
    secret: dict[str, str] = field(repr=False)

    @property
    def inbox(self) -> Path:
        return self.home / ".dynamicid" / "inbox"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DYNAMICID_STACK": str(self.state),
            "MLFLOW_TRACKING_URI": self.addresses["mlflow"],
            "MLFLOW_TRACKING_USERNAME": "pipeline",
            "MLFLOW_TRACKING_PASSWORD": self.secret["MLFLOW_TRACKING_PASSWORD"],
        }

    @property
    def stack(self) -> Any:
        from pipelines.operations.stack.settings import Stack, saved_ports

        return Stack(self.home, self.state, saved_ports(self.state))

    def pids(self) -> dict[str, int]:
        """Return {service: process id}."""
        from pipelines.operations.stack.supervisor import proxy

        return {info["name"]: info["pid"] for info in proxy(self.stack).supervisor.getAllProcessInfo()}

    def cli(self, *arguments: str) -> str:
        """Run a command in the checkout and return its stdout."""
        return dynamicid(*arguments, cwd=self.home, env=self.environment()).stdout

    def commit_params(self, *overrides: str) -> None:
        """Change params.yaml and commit it, since runs use committed files."""
        given = [part for override in overrides for part in ("--set", override)]
        self.cli("configure", *given)
        git(self.home, "commit", "-qam", "Other parameters", "--allow-empty")

    def workspace(self, dag: str, run: str) -> Path:
        """Return the folder in which a run works."""
        from pipelines.versions.workspace import run_name

        return self.home / ".dynamicid" / "runs" / run_name(f"{dag}/{run}")

    def client(self) -> Any:
        """Return a client of the MLflow server."""
        os.environ.update({name: value for name, value in self.environment().items() if name.startswith("MLFLOW_")})
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.addresses["mlflow"])

    def ingested(self, batch: str, identities: int) -> tuple[str, str]:
        """Drop drawn people and wait until they are ingested; return the ingesting run and its version."""
        before = set(self.cli("dataset", "list").split())
        runs = {run["dag_run_id"] for run in self.airflow.runs("dynamicid_ingest") if run["state"] == "success"}
        target = self._drop(batch, identities)
        self.airflow.unpause("dynamicid_ingest")

        def ended() -> list[str]:
            found = (run for run in self.airflow.runs("dynamicid_ingest") if run["state"] in ENDED)
            return [run["dag_run_id"] for run in found if run["dag_run_id"] not in runs]

        done = wait_until(ended, 2400, lambda: self.airflow.runs("dynamicid_ingest"), 2)
        self.airflow.unpause("dynamicid_ingest", paused=True)
        states = self.airflow.states("dynamicid_ingest", done[0])
        assert set(states.values()) == {"success"}, states
        new = set(self.cli("dataset", "list").split()) - before
        assert len(new) == 1
        assert not target.exists()
        return done[0], new.pop()

    def _drop(self, batch: str, identities: int) -> Path:
        """Synthesize photos elsewhere, then move the batch into the inbox and add `_READY`."""
        outside = self.home / ".dynamicid" / "drawn" / batch
        # A new seed: the dataset of a running stack already contains the people of earlier tests.
        seed = str(time.time_ns() % 10**6)
        self.cli("synthesize", "--identities", str(identities), "--seed", seed, "--out", str(outside))
        self.inbox.mkdir(parents=True, exist_ok=True)
        target = self.inbox / batch
        outside.rename(target)
        (next(target.iterdir()) / "broken.jpg").write_bytes(b"\xff\xd8\xff this is no picture")
        (target / "_READY").touch()
        return target

    def new_run(self, dag: str, kind: str, earlier: set[str], seconds: float = SECONDS) -> str:
        """Wait for a run of `kind` that is not in `earlier`, and return its id."""

        def found() -> str | None:
            ids = (run["dag_run_id"] for run in self.airflow.runs(dag) if run["run_type"] == kind)
            return next((name for name in ids if name not in earlier), None)

        return wait_until(found, seconds, f"{dag}: no {kind} run", 2) or ""


def _small_team(home: Path, state: Path, addresses: dict[str, str]) -> Team:
    from pipelines.operations.stack.credentials import FILE, read_env

    secret = read_env(state / FILE)
    airflow = Airflow(addresses["airflow"], secret["AIRFLOW_ADMIN_PASSWORD"])
    for dag in ("dynamicid_train", "dynamicid_ingest"):
        airflow.wait_for_dag(dag)
    airflow.unpause("dynamicid_train")
    team = Team(home, state, airflow, addresses, secret)
    gates = yaml.safe_dump([{"metric": "face_rate", "minimum": 0.0, "max_regression": 0.2}], default_flow_style=True)
    limits = yaml.safe_load((home / "params.yaml").read_text())["drift"]["limits"]
    team.commit_params(
        *SMALL_CHAIN,
        "train_anchoring.steps=4",
        "train_imr.steps=4",
        "inbox.quiet_seconds=2",
        # Batches of few people always differ from each other, so drift must not stop a training.
        *(f"drift.limits.{name}.stop=1000" for name in limits),
        f"register.gates={gates.strip()}",
    )
    return team


@pytest.fixture(scope="session")
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A checkout with small parameters, and its servers."""
    if given := os.environ.get(HOME):
        home = Path(given).resolve()
        state = Path(os.environ.get("DYNAMICID_STACK", home / ".dynamicid" / "stack"))
        ports = json.loads((state / "ports.json").read_text())
        addresses = {name: f"http://127.0.0.1:{ports[name]}" for name in ("airflow", "mlflow")}
        yield _small_team(home, state, addresses)
        return
    try:
        find_programs()
    except UserError as error:
        pytest.skip(str(error))
    home = shutil.copytree(request.getfixturevalue("checkout"), tmp_path_factory.mktemp("team") / "dynamicid")
    # Not in pytest's temporary folder, which PostgreSQL's user cannot enter.
    state = Path(tempfile.mkdtemp(prefix="dynamicid-stack-"))
    state.chmod(0o755)
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}  # trainings run one at a time, on all cores
    env = {"DYNAMICID_STACK": str(state), "DYNAMICID_RETRY_SECONDS": "5", **threads}
    ports = [f"--{name}-port={free_port()}" for name in ("postgres", "airflow", "mlflow")]
    try:
        begun = dynamicid("stack", "start", *ports, "--timeout=600", cwd=home, env=env)
        yield _small_team(home, state, json.loads(begun.stdout.splitlines()[-1]))
    finally:
        dynamicid("stack", "stop", cwd=home, env=env)
        logs = Path(__file__).parents[2] / "reports" / "e2e" / "logs"
        shutil.copytree(state / "logs", logs, dirs_exist_ok=True)
        shutil.rmtree(state)


@pytest.fixture(scope="session")
def pictures(project: Path) -> Path:
    """The folder for screenshots, which git ignores and CI collects."""
    folder = project / "reports" / "e2e"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""The guides whose commands need nothing but a finished chain, typed one after another in a fresh clone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guides import Shell, commands
from tests.processes import SMALL_CHAIN, commit_all, dynamicid, git, link_environment, wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]
# What a reader puts in the place of the guides' examples, and lines that need a server or an interrupted run.
REPLACED = {
    "source .venv/bin/activate": "true",
    "make stack-stop": "true",
    "git pull && make env": "true",
    'git commit -am "Upgrade"': "true",
    "dynamicid train-imr --resume-from .dynamicid/resume/train_imr/<key>/step-00000400": "true",
    "--processes 8": "--processes 2",
    "--adapter DIR --metrics FILE --report FILE": "--adapter models/adapter --metrics m.json --report r.html",
    "blind sheets --out DIR": "blind sheets --people 2 --each 1 --out sheets",
    "DIR ANSWERS": "sheets sheets/key.json",
    "identity=anna": "identity=demo-00001",
    "--where status=rejected --where reason=no_face": "--where status=ok",  # of drawn people, none is rejected
    "models:/dynamicid/3": "models:/dynamicid/1",
    "faces-v3": "faces-v1",
    "reproduce models:/dynamicid/1 --out DIR": "reproduce models:/dynamicid/1 --out ../again",
    "--layout LAYOUT --out DIR": "--layout sidecars --out exported/files",
    "--data DIR": "--data data/faces",
}
# Photos that the guides name, and those of drawn people that stand for them.
PHOTOS = {
    "a.jpg": "demo-00000/1",
    "a1.jpg": "demo-00000/1",
    "a2.jpg": "demo-00000/2",
    "b.jpg": "demo-00001/1",
    "group.jpg": "demo-00001/2",
}
# Nobody has the networks of `sd15` here.
CODES = {"dynamicid doctor --profile sd15": 1}


@pytest.fixture(scope="module")
def shell(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A checkout with a finished chain of few steps, whose version a person made champion.

    MLflow sets variables of this process, which other tests may have left.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [one for one in os.environ if one.startswith(("MLFLOW", "DYNAMICID"))]:
            patch.delenv(name)
        yield _shell(checkout, tmp_path_factory)


def _shell(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    home = tmp_path_factory.mktemp("guides") / "home"
    git(home.parent, "clone", "-q", str(checkout), str(home))
    changes = (*SMALL_CHAIN, "train_anchoring.steps=3", "train_imr.steps=4", "evaluate.shipped_adapter=null")
    dynamicid("configure", *(part for change in changes for part in ("--set", change)), cwd=home)
    dynamicid("synthesize", "--identities", "10", "--out", ".dynamicid/photos", cwd=home)
    dynamicid("ingest", ".dynamicid/photos", cwd=home)
    dynamicid("repro", cwd=home)
    commit_all(home, "A first model")
    dynamicid("register", "--accept-refusal", cwd=home)
    dynamicid("promote", "models:/dynamicid/1", "--by", "a reader", "--override-gates", cwd=home)
    return Shell(home, REPLACED | {"dynamicid ": "python -m pipelines.cli "})


def test_what_the_guides_say_is_done(shell: Shell, project: Path) -> None:
    printed: dict[str, str] = {}
    for name in ("draw", "judge", "browse", "export", "promote", "doctor", "upgrade", "train"):
        for command in commands((project / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8")):
            for photo, drawn in PHOTOS.items():
                if photo in command:
                    shell.type(f"cp .dynamicid/people/{drawn}.jpg {photo}")
            code = next((code for start, code in CODES.items() if command.startswith(start)), 0)
            printed[command] = shell.type(command, code)
    home = shell.home
    for file in ("sad.png", "two.png", "r.html", "sheets/matching.png", "reports/browse/index.html"):
        assert (home / file).stat().st_size > 1000, file
    assert (home.parent / "again" / "models" / "adapter" / "config.json").is_file()
    assert "faces-v1" in printed["dynamicid dataset list              # names only, for programs"]


def test_make_mlflow_shows_the_runs_at_the_address_that_it_prints(shell: Shell) -> None:
    home, log = shell.home, shell.home.parent / "mlflow.log"
    link_environment(home)
    with log.open("w") as output:
        server = subprocess.Popen(["make", "mlflow"], cwd=home, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: _answers("http://127.0.0.1:5000/health"), 180, log.read_text)
        address = re.search(r"the runs: (http\S+/experiments/(\d+)/\S+)", log.read_text())
        assert address, log.read_text()
        asked = json.dumps({"experiment_ids": [address[2]], "max_results": 100}).encode()
        request = urllib.request.Request(
            "http://127.0.0.1:5000/api/2.0/mlflow/runs/search", asked, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            names = {run["info"]["run_name"] for run in json.load(answer)["runs"]}
        assert {"chain faces-v1", "preprocess", "train_imr", "evaluate", "register"} <= names
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False

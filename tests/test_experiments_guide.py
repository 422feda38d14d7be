"""The guide to DVC's experiments, typed command by command in a fresh clone, and again at a colleague's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.params import load_params
from tests.guides import Shell, commands, section
from tests.processes import SMALL_CHAIN, dynamicid, git, wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]
GUIDE = "docs/guides/experiments.md"
# Small values for those of the guide.
SMALL = {"train_imr.steps=60": "train_imr.steps=3", "evaluate.people=8": "evaluate.people=3"}


class GuideShell(Shell):
    """A terminal in which sections of the guide are typed."""

    def type_section(self, heading: str) -> dict[str, str]:
        """Type the commands of a section of the guide; return what each printed, by its first three words."""
        printed = {}
        for command in commands(section(self.home / GUIDE, heading)):
            if "ADDRESS" in command:
                break
            printed[" ".join(command.split()[:3])] = self.type(command)
            if command.startswith("dvc queue start"):
                wait_until(lambda: not self.at_work(), 3600, lambda: self.type("dvc queue status"), 5)
        return printed

    def at_work(self) -> bool:
        return any(word in self.type("dvc queue status") for word in ("Running", "Queued"))


@pytest.fixture(scope="module")
def shell(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> GuideShell:
    """A finished, committed chain of few steps in a fresh clone, whose origin is a bare repository."""
    folder = tmp_path_factory.mktemp("experiments")
    git(folder, "clone", "-q", "--bare", str(checkout), "origin.git")
    git(folder, "clone", "-q", "origin.git", "home")
    home = folder / "home"
    changes = (*SMALL_CHAIN, "train_anchoring.steps=3", "train_imr.steps=4", "evaluate.shipped_adapter=null")
    dynamicid("configure", *(part for change in changes for part in ("--set", change)), cwd=home)
    dynamicid("synthesize", "--identities", "10", "--out", ".dynamicid/photos", cwd=home)
    dynamicid("ingest", ".dynamicid/photos", cwd=home)
    dynamicid("repro", "--no-record", cwd=home)
    remote = folder / "remote"
    remote.mkdir()
    replaced = {
        "source .venv/bin/activate": "true",
        "s3://bucket/dynamicid": str(remote),
        "make env": "true",
        "dynamicid repro": "python -m pipelines.cli repro --no-record",
    }
    return GuideShell(home, replaced | SMALL | {"ADDRESS": str(folder / "origin.git")})


def test_experiments_run_compare_and_reach_a_colleague_as_the_guide_says(shell: GuideShell) -> None:
    shell.type_section("Try parameters with DVC")
    assert shell.type("git status --short") == ""
    before = (shell.home / "params.yaml").read_text()

    refused = shell.type("dvc exp run --set-param train_imr.step=3", code=255)
    assert "Key 'step' is not in struct" in refused
    named = shell.type("dvc exp run --set-param +train_imr.step=3", code=255)
    assert "unknown key train_imr.step; did you mean train_imr.steps? (`git checkout params.yaml` takes back" in named
    shell.type("git checkout params.yaml")
    shell.type("dvc exp run --queue --name wrong --set-param train_imr.steps=many")

    shell.type_section("Run")
    assert (shell.home / "params.yaml").read_text() == before
    status = shell.type("dvc queue status")
    assert [line.split()[-1] for line in status.splitlines() if "wrong" in line] == ["Failed"]
    assert status.count("Success") == 2
    assert "train_imr.steps = 'many': Input should be a valid integer" in shell.type("dvc queue logs wrong")

    printed = shell.type_section("Compare")
    table = printed["dvc exp show"]
    assert all(name in table for name in ("shorter", "faster", "other-people", "evaluation_set", "train_imr.steps"))
    assert "0.002" in printed["dvc exp diff"]
    assert "evaluation_set" not in printed["dvc exp diff"], "both were evaluated on the same set"
    assert len(printed["dvc metrics diff"].splitlines()) <= 20
    assert "evaluation_set" in shell.type("dvc exp diff shorter other-people")
    changed = printed["dvc params diff"].splitlines()[1:]
    assert sorted(line.split()[1] for line in changed) == ["train_imr.learning_rate", "train_imr.steps"]
    assert "losses.csv" in (shell.home / "dvc_plots" / "index.html").read_text()

    shell.type_section("What a colleague needs")
    every = list(commands(section(shell.home / GUIDE, "What a colleague needs")))
    clone, *theirs = every[next(number for number, one in enumerate(every) if "ADDRESS" in one) :]
    shell.type(f"cd .. && {clone}")
    colleague = Shell(shell.home.parent / "dynamicid", shell.replaced)
    printed = {command.split()[1]: colleague.type(command) for command in theirs}
    assert "Running stage" not in printed["repro"]
    assert (colleague.home / "models" / "adapter" / "config.json").is_file()
    assert "faster" in colleague.type("dvc exp list --all-commits")
    assert load_params(colleague.home / "params.yaml").train_imr.learning_rate == 0.002, "applied, with its results"
    assert (colleague.home / "models" / "adapter" / "config.json").is_file()

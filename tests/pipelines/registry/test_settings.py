"""The address of the checkout's own database names its file, whatever the path holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pipelines.registry.settings import own_uri, tracking_root
from tests.processes import PROJECT, commit_all, dynamicid, run

ODD = ("C# faces", "50%20off?x=1", "100%", "user:pw@host", "名前 n\u0303", "%(here)s", "a b'c\"d")


@pytest.mark.parametrize("name", ["plain", *ODD])
def test_sqlalchemy_reads_the_path_back(name: str) -> None:
    from sqlalchemy.engine import make_url

    root = Path("/somewhere") / name
    assert make_url(own_uri(root)).database == str(root / "mlflow.db")


def test_a_path_that_needs_no_escape_has_the_address_it_always_had() -> None:
    assert own_uri(Path("/home/me/C# faces")) == "sqlite:////home/me/C# faces/mlflow.db"


def test_an_experiment_that_dvc_runs_elsewhere_uses_the_database_of_its_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNAMICID_HOME", raising=False)
    for folder in ("standalone/tmp1", "tmp2"):
        assert tracking_root(tmp_path / ".dvc" / "tmp" / "exps" / folder) == tmp_path
    for other in (tmp_path, tmp_path / "exps"):
        assert tracking_root(other) == other


def test_mlflow_makes_its_database_in_a_folder_with_quotes_and_colons(tmp_path: Path) -> None:
    root = tmp_path / 'it\'s "mine":\\here'
    root.mkdir()
    (root / "file").touch()
    commit_all(root, "start")
    error = dynamicid("lineage", "faces-v9", cwd=root, without=("MLFLOW", "DYNAMICID"), code=1).stderr
    assert "faces-v9: no tag or commit of this checkout" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["C# faces", "50%20off?x=1"])
def test_mlflow_makes_nothing_beside_the_checkout(tmp_path: Path, empty_database: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy2(empty_database, root / "mlflow.db")
    script = (
        "import mlflow, sys; from pathlib import Path; from pipelines.registry.tracking import connect\n"
        "connect(Path.cwd())\n"
        "with mlflow.start_run() as run: mlflow.log_text('kept', 'note.txt')\n"
        "print(mlflow.artifacts.load_text(f'runs:/{run.info.run_id}/note.txt'))"
    )
    done = run(
        sys.executable, "-c", script, cwd=root, env={"PYTHONPATH": str(PROJECT)}, without=("MLFLOW", "DYNAMICID")
    )
    assert done.stdout.splitlines()[-1] == "kept"
    assert [path.name for path in tmp_path.iterdir()] == [name]

"""Files that lie side by side are registered only where they are one result, with the parameters that made it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.params import load_params
from pipelines.registry.origins import origins_of
from pipelines.registry.promotion import promote
from pipelines.registry.registry import find_version, open_registry, versions_of
from pipelines.registry.reproduce import reproduce
from pipelines.registry.results import result_of
from pipelines.stages import register
from pipelines.versions.dataset_version import make_version
from tests.pipelines.registry.conftest import make_result, small_chain
from tests.processes import dvc


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, project: Path, empty_database: Path) -> Path:
    """A repository with a finished chain that nobody has registered yet; `root` copies it."""
    home = tmp_path_factory.mktemp("finished") / "checkout"
    small_chain(home, project)
    shutil.copy2(empty_database, home / "mlflow.db")
    make_result(home, 0.5)
    return home


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "checkout", symlinks=True)


def rewrite(file: Path, change: Callable[[str], str]) -> None:
    text = file.read_text()
    file.unlink()  # DVC may have linked it to its cache
    file.write_text(change(text))


def run(root: Path, *overrides: str) -> Any:
    return register.run(load_params(root / "params.yaml", overrides), register.Inputs(root))


def test_parameters_and_data_are_those_that_made_the_result(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the next training is being prepared: neither its learning rate nor its photos made this result."""
    import mlflow

    rewrite(root / "params.yaml", lambda text: text.replace("learning_rate: 0.0002", "learning_rate: 0.123"))
    assert load_params(root / "params.yaml").train_imr.learning_rate == 0.123
    (root / "data" / "faces" / "new.txt").write_text("one more photo")
    assert make_version(root, "data/faces", "one more").tag == "faces-v2"
    done = run(root)
    assert done.decision == "promoted"
    printed = capsys.readouterr().err
    assert "train_imr.learning_rate 0.123, made with 0.0002" in printed
    assert "reports/metrics.json: made from faces-v1, but data/faces is faces-v2" in printed
    assert origins_of(root, "models:/dynamicid/1").dataset_version == "faces-v1"
    folder = Path(mlflow.artifacts.download_artifacts("models:/dynamicid/1"))
    assert load_params(folder / "artifacts" / "params.yaml").train_imr.learning_rate == 0.0002
    assert load_params(root / "params.yaml").train_imr.learning_rate == 0.123, "the file itself stays"
    assert origins_of(root, "models:/dynamicid/1").git_commit is not None
    again = reproduce(root, "models:/dynamicid/1", tmp_path / "again")
    assert again.changed == {}
    assert not (tmp_path / "again" / "data" / "faces" / "new.txt").exists()


def test_no_commit_is_recorded_for_a_result_of_other_code(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(root / "step.py", lambda text: f"# as after git pull\n{text}")
    run(root)
    assert "have changed since, so no git commit is recorded: step.py" in capsys.readouterr().err
    assert origins_of(root, "models:/dynamicid/1").git_commit is None


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("models/adapter/config.json", r"models/adapter is \w+, dvc\.lock has \w+.*reports/metrics\.json does not say"),
        ("reports/metrics.json", r"reports/metrics\.json is \w+, dvc\.lock has \w+"),
        ("models/anchoring/config.json", "models/adapter"),
        ("reports/validate/verdict.json", r"reports/validate/verdict\.json is \w+, dvc\.lock has \w+"),
        ("data/processed/config.json", r"data/processed is \w+, dvc\.lock has \w+"),
    ],
)
def test_a_file_of_another_run_is_refused_by_name(root: Path, file: str, named: str) -> None:
    """As after a stage was called by hand, or a file was copied here: `dvc.lock` does not know it."""
    rewrite(root / file, lambda text: text.replace("0.5", "0.9"))
    with pytest.raises(StageFailed, match=rf"{named}.*dynamicid (repro|evaluate)"):
        run(root)
    assert versions_of(open_registry(root), "dynamicid") == []


def test_a_stage_that_was_run_alone_is_refused_by_name(root: Path) -> None:
    """As after `dvc repro --single-item train_imr`: the lock file has the new adapter beside the old figures."""
    adapter = root / "models" / "adapter"
    rewrite(adapter / "config.json", lambda text: text.replace("0.5", "0.9"))
    dvc(root, "commit", "-q", "-f", "train_imr")
    with pytest.raises(StageFailed, match=r"models/adapter is \w+, dvc\.lock has \w+"):
        run(root)
    shutil.rmtree(adapter)  # a missing file cannot be taken for another, but the lock file still differs
    with pytest.raises(StageFailed, match=r"evaluate was made from models/adapter \w+, train_imr has made \w+ since"):
        result_of(root, "evaluate")


def test_a_version_with_figures_of_another_adapter_is_not_promoted(root: Path) -> None:
    """Earlier releases registered whatever lay side by side."""
    import mlflow

    run(root)
    client = open_registry(root)
    first = find_version(client, "models:/dynamicid/1")
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as other:
        document = {"evaluation_set": "e" * 64, "settings": {"adapter": "0123456789abcdef"}}
        (Path(folder) / "metrics.json").write_text(json.dumps(document))
        mlflow.log_artifact(str(Path(folder) / "metrics.json"))
    tags = {**first.tags, "dynamicid.evaluate_run": other.info.run_id}
    client.create_model_version("dynamicid", first.source, tags=tags, model_id=first.model_id)
    with pytest.raises(StageFailed, match=r"models:/dynamicid/2: its figures .* are of the adapter 0123456789ab"):
        promote(root, "models:/dynamicid/2", by="Ada")

"""What the tests of forgetting ask of a project: commands, records of models, and a plain search for bytes."""

from __future__ import annotations

import base64
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from pipelines.versions.dataset_version import current_version

from .conftest import Home


def files_with(folders: list[Path], pieces: list[bytes]) -> list[str]:
    """Return every file that contains one of the pieces, by a plain search."""
    return sorted(
        str(file)
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and any(piece in file.read_bytes() for piece in pieces)
    )


def pieces_of(bodies: list[bytes]) -> list[bytes]:
    """Return the pictures, three parts of each, and a part of each as base64 in a page."""
    parts = [body[len(body) * at // 8 :][:40] for body in bodies for at in (2, 4, 6)]
    pages = [base64.b64encode(body)[len(body) // 2 :][:60] for body in bodies]
    return [*bodies, *parts, *pages]


def processed_of(home: Home, person: str) -> list[bytes]:
    rows = [
        row for file in (home.root / "data" / "processed").glob("*.parquet") for row in pq.read_table(file).to_pylist()
    ]
    return [row["image"] for row in rows if row["identity"] == person]


def command(root: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command in this process, without variables that name other folders; return stdout and stderr."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(root)
        for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_RUNS"):
            patch.delenv(name, raising=False)
        try:
            main([*arguments])
        except SystemExit as exit:
            ended = int(exit.code or 0)
    assert ended == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def record(home: Home) -> dict[str, str]:
    """Record the evaluation and a registered model as the pipeline does; return the ids of the runs."""
    from mlflow.tracking import MlflowClient

    from pipelines.registry.tracking import connect

    connect(home.root)
    client = MlflowClient()
    ids = {}
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    for name, tags, page in (
        (
            "with_anna",
            {"dynamicid.stage": "evaluate", "dynamicid.dataset_md5": current_version(home.root).md5},
            "reports/index.html",
        ),
        ("other", {"dynamicid.dataset_md5": "0"}, "report.py"),
    ):
        run = client.create_run(experiment, tags=tags)
        client.log_artifact(run.info.run_id, str(home.root / page))
        ids[name] = run.info.run_id
        if name == "with_anna":
            client.create_registered_model("dynamicid")
            client.create_model_version("dynamicid", run.info.artifact_uri, run_id=run.info.run_id, tags=tags)
            client.set_registered_model_alias("dynamicid", "champion", "1")
    return ids

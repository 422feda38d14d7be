"""The project root does not depend on the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.processes import PROJECT, run


def test_a_folder_named_model_in_the_working_directory_does_not_change_the_root(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "__init__.py").touch()
    code = "from pipelines.core.paths import project_root; print(project_root())"
    printed = run(sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(PROJECT)}).stdout
    assert Path(printed.strip()) == PROJECT

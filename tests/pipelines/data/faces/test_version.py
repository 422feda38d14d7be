"""The version of the analysers changes with their code; missing code is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.params import load_params
from pipelines.data.curation.survey import state_folder
from pipelines.data.faces import version


def test_a_change_of_code_is_another_version_and_code_that_is_gone_an_error(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    root = tmp_path / "root"
    monkeypatch.setattr(version, "project_root", lambda: root)
    seen = set()
    for name in ("pipelines/data/faces/pose.py", "model/face/face_prompts.py"):
        with pytest.raises(ValueError, match="no code there, so no change of it would be noticed"):
            version.analyser_version(params.preprocess)
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("one")
    seen.add(version.analyser_version(params.preprocess))
    (root / name).write_text("two")
    seen.add(version.analyser_version(params.preprocess))
    assert len(seen) == 2
    with pytest.raises(ValueError, match=r"curation/analyse\.py: no code there"):
        state_folder(params, tmp_path / "state", tmp_path)
    (root / "pipelines/data/curation").mkdir()
    (root / "model/face/face_geometry.py").write_text("one")
    for text in ("one", "two"):
        (root / "pipelines/data/curation/analyse.py").write_text(text)
        seen.add(state_folder(params, tmp_path / "state", tmp_path).name)
    assert len(seen) == 4

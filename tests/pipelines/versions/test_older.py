"""Results that are older than the dataset are named, with both versions; present ones and those by hand are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.core.chain import METRICS, PROCESSED
from pipelines.versions.dataset_version import make_version
from pipelines.versions.older import older_than_data, warn_if_older
from tests.pipelines.registry.conftest import make_result, small_chain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    root = tmp_path_factory.mktemp("older") / "checkout"
    small_chain(root, project)
    make_result(root, 0.5)
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "checkout", symlinks=True)


def test_results_of_the_present_dataset_are_not_named(root: Path, tmp_path: Path) -> None:
    assert warn_if_older(root, PROCESSED, METRICS, "data/elsewhere") == []
    assert older_than_data(tmp_path, METRICS) is None, "nothing says what it was made from"


def test_results_are_named_after_new_photos(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "data" / "faces" / "new.txt").write_text("one more photo")
    assert make_version(root, "data/faces", "one more").tag == "faces-v2"
    lines = warn_if_older(root, Path(PROCESSED), METRICS)
    assert [line.split(":")[0] for line in lines] == [PROCESSED, METRICS]
    assert all("made from faces-v1, but data/faces is faces-v2; `dynamicid repro`" in line for line in lines)
    printed = capsys.readouterr().err
    assert all(line in printed for line in lines)


@pytest.mark.parametrize("form", ["./{}", "{root}/{}", "{root}/reports/../{}", "{}/", "elsewhere/../{}", "{link}/{}"])
def test_every_form_of_the_same_place_is_known(root: Path, tmp_path: Path, form: str) -> None:
    (root / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(root)
    (root / "data" / "faces" / "new.txt").write_text("one more photo")
    make_version(root, "data/faces", "one more")
    for name in (PROCESSED, METRICS):
        line = older_than_data(root, form.format(name, root=root, link=tmp_path / "link"))
        assert line is not None
        assert line.startswith(f"{name}: made from faces-v1")
    shutil.copytree(root / PROCESSED, root / "elsewhere" / "processed")
    assert older_than_data(root, "elsewhere/processed") is None


def test_a_file_that_a_stage_called_by_hand_has_written_since_is_not_named(root: Path) -> None:
    (root / "data" / "faces" / "new.txt").write_text("one more photo")
    make_version(root, "data/faces", "one more")
    (root / METRICS).unlink()
    (root / METRICS).write_text("{}")
    assert older_than_data(root, METRICS) is None

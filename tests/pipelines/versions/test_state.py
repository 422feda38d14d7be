"""All workspaces of a checkout have one state; DYNAMICID_STATE names another folder, which the checkout remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.versions.dvc import dvc
from pipelines.versions.places import SHARED, noted
from pipelines.versions.state import VARIABLE, shared_state, states_of
from pipelines.versions.workspace import create
from tests.processes import commit_all, git


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    commit_all(folder, "start")
    return folder


def test_workspaces_use_the_state_of_their_checkout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (create(home, run).path for run in ("one", "other"))
    assert shared_state(home) == shared_state(one) == shared_state(other) == home / ".dynamicid"
    monkeypatch.chdir(home)
    assert shared_state(Path()) == Path(".dynamicid"), "messages name it as the user knows it"
    assert states_of(home) == [home / ".dynamicid"]


def test_a_folder_without_a_repository_has_a_state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert shared_state(tmp_path) == tmp_path / ".dynamicid"


def test_another_folder_is_remembered_by_the_checkout_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(home, "one").path
    monkeypatch.setenv(VARIABLE, str(tmp_path / "fast"))
    assert shared_state(run) == tmp_path / "fast"
    (tmp_path / "fast").mkdir()
    monkeypatch.setenv(VARIABLE, "within")
    assert shared_state(run) == shared_state(home) == home / "within"
    monkeypatch.delenv(VARIABLE)
    assert states_of(home) == [home / ".dynamicid", tmp_path / "fast"]
    assert noted(run, SHARED) == [], "what is in it is not the workspace's, which `forget` would delete"


def test_the_address_of_an_object_store_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "s3://bucket/state")
    with pytest.raises(UserError, match=r"^DYNAMICID_STATE=s3://bucket/state: expected a folder.* DVC remote$"):
        shared_state(home)
    assert not (home / "s3:").exists()

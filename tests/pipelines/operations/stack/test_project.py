"""A new image's code is merged into the project in the volume, and no commit of the team is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.stack.project import bring_up_to_date
from tests.processes import commit_all, dynamicid, git


def _image(folder: Path, **files: str) -> Path:
    """Return a repository with an image's code: one commit, without a common history with other images."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    commit_all(folder, "The code of this image")
    return folder


SETTINGS = "steps: 900\n" + "# …\n" * 8 + "people: 100\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project in which the team changed a parameter and made a dataset version."""
    home = tmp_path / "project"
    home.mkdir()  # as an empty volume
    first = _image(tmp_path / "first", code="one\n", gone="old\n", settings=SETTINGS)
    assert bring_up_to_date(home, first) == "a new project with the code of the image"
    (home / "settings").write_text(SETTINGS.replace("people: 100", "people: 7000"))
    (home / "faces.dvc").write_text("md5: 1\n")
    commit_all(home, "faces v1")
    git(home, "tag", "faces-v1")
    assert bring_up_to_date(home, first) == "the project has the code of the image"
    return home


def test_new_code_arrives_and_the_teams_work_stays(home: Path, tmp_path: Path) -> None:
    for number, code in enumerate(("two\n", "three\n")):
        image = _image(tmp_path / f"image{number}", code=code, settings=SETTINGS.replace("steps: 900", "steps: 600"))
        assert bring_up_to_date(home, image) == "the code of the new image is merged into the project"
        assert bring_up_to_date(home, image) == "the project has the code of the image"
        assert (home / "code").read_text() == code
    assert not (home / "gone").exists()
    assert (home / "settings").read_text() == SETTINGS.replace("900", "600").replace("100", "7000")
    assert (home / "faces.dvc").read_text() == "md5: 1\n"
    assert git(home, "rev-parse", "faces-v1").strip() in git(home, "log", "--format=%H").splitlines()
    assert git(home, "status", "--porcelain") == ""


def test_a_conflict_is_named_and_changes_nothing(home: Path, tmp_path: Path) -> None:
    image = _image(tmp_path / "image", code="two\n", settings=SETTINGS.replace("people: 100", "people: 50"))
    before = git(home, "rev-parse", "HEAD")
    with pytest.raises(StageFailed, match=r"both changed settings; it is unchanged"):
        bring_up_to_date(home, image)
    assert (git(home, "rev-parse", "HEAD"), git(home, "status", "--porcelain")) == (before, "")
    assert (home / "code").read_text() == "one\n"


def test_what_is_not_committed_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    (home / "code").write_text("in the middle of something\n")
    with pytest.raises(StageFailed, match=r"does not merge .*overwritten by merge: code Please"):
        bring_up_to_date(home, _image(tmp_path / "image", code="two\n", settings=SETTINGS))
    assert (home / "code").read_text() == "in the middle of something\n"


@pytest.mark.parametrize("killed_at", ["init", "fetch", "update-ref", "read-tree"])
def test_a_project_left_half_made_is_made(killed_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.operations.stack import project

    class Killed(BaseException):
        pass

    def dies(folder: Path, *arguments: str) -> str:
        output = done(folder, *arguments)
        if arguments[0] == killed_at:
            (folder / ".git" / "index.lock").touch()
            raise Killed
        return output

    image, done = _image(tmp_path / "image", code="one\n"), project.git
    (tmp_path / "home" / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(project, "git", dies)
    with pytest.raises(Killed):
        bring_up_to_date(tmp_path / "home", image)
    monkeypatch.undo()
    assert bring_up_to_date(tmp_path / "home", image) == "a new project with the code of the image"
    assert bring_up_to_date(tmp_path / "home", image) == "the project has the code of the image"
    assert (tmp_path / "home" / "code").read_text() == "one\n"
    assert git(tmp_path / "home", "status", "--porcelain") == ""


def test_a_folder_with_other_contents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(UserError, match="neither empty nor a git repository"):
        bring_up_to_date(tmp_path / "photos", _image(tmp_path / "image", code="one\n"))
    other = _image(tmp_path / "other", code="mine\n")
    with pytest.raises(UserError, match="a repository that was not made by an image"):
        bring_up_to_date(other, tmp_path / "image")
    assert (other / "code").read_text() == "mine\n"


def test_the_command_makes_a_checkout_from_which_runs_are_cloned(checkout: Path, tmp_path: Path) -> None:
    from pipelines.versions.workspace import create

    done = dynamicid("stack", "project", tmp_path / "project", cwd=checkout)
    assert done.stderr == "a new project with the code of the image\n"
    work = create(tmp_path / "project", "manual__1")
    assert (work.path / "dvc.yaml").read_bytes() == (checkout / "dvc.yaml").read_bytes()

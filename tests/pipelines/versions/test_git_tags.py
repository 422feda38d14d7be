"""A number that another run took is tried again; a tag that cannot be made or pushed is an error at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed
from pipelines.versions.git_tags import NotClaimed, claim_tag, retry_claim
from tests.processes import commit_all, git


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the repository `home` beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "code.py").write_text("print()\n")
    commit_all(home, "start")
    git(tmp_path, "clone", "-q", str(home), "clone")
    return tmp_path / "clone"


def claim(clone: Path) -> str:
    """Claim the next number of this clone as a run does."""
    head = git(clone, "rev-parse", "HEAD").strip()
    return retry_claim(lambda: claim_tag(clone, "faces-v", head, "photos", push="origin"))


def refused(clone: Path) -> str:
    """Return the error of a claim, which comes without a second attempt."""
    begin = time.monotonic()
    with pytest.raises(StageFailed) as error:
        claim(clone)
    assert time.monotonic() - begin < 10, "thirty attempts take forty seconds"
    assert git(clone, "tag").split() == []
    return str(error.value)


def test_a_number_that_another_run_took_is_not_an_error(clone: Path) -> None:
    home = clone.parent / "home"
    git(home, "tag", "faces-v1")
    head = git(clone, "rev-parse", "HEAD").strip()
    with pytest.raises(NotClaimed):
        claim_tag(clone, "faces-v", head, "photos", push="origin")
    git(clone, "fetch", "-q", "--tags")
    assert claim(clone) == "faces-v2"
    assert git(home, "tag").split() == ["faces-v1", "faces-v2"]


def test_an_origin_that_is_gone_is_named_at_once(clone: Path) -> None:
    shutil.rmtree(clone.parent / "home")
    assert "the tag faces-v1 cannot be pushed to origin: fatal: " in refused(clone)


def test_an_origin_that_declines_is_quoted_at_once(clone: Path) -> None:
    hook = clone.parent / "home" / ".git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no tags on Sundays >&2\nexit 1\n")
    hook.chmod(0o755)
    assert "cannot be pushed to origin: remote: no tags on Sundays" in refused(clone)


def test_a_tag_that_cannot_be_written_here_is_an_error_at_once(clone: Path) -> None:
    """A file stands where git needs a folder, which also root cannot overcome."""
    tags = clone / ".git" / "refs" / "tags"
    shutil.rmtree(tags)
    tags.write_text("")
    head = git(clone, "rev-parse", "HEAD").strip()
    with pytest.raises(StageFailed, match="the tag faces-v1 cannot be made: fatal: "):
        claim_tag(clone, "faces-v", head, "photos")

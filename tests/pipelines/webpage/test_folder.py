"""The page's own folder: empty at the start, gone at the end, and nobody else's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.webpage.folder import own_folder


def test_temporary_files_lie_in_it_while_the_page_is_open(tmp_path: Path) -> None:
    left = tmp_path / ".dynamicid" / "app" / "7860" / "left" / "behind.png"
    left.parent.mkdir(parents=True)
    left.touch()
    before = tempfile.gettempdir()
    with own_folder(tmp_path, 7860) as folder:
        assert not any(folder.iterdir()), "a page that was killed left photos"
        assert folder.stat().st_mode & 0o077 == 0
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
    assert tempfile.gettempdir() == before
    assert not folder.exists()


def test_two_pages_do_not_share_one(tmp_path: Path) -> None:
    with own_folder(tmp_path, 7860) as folder, own_folder(tmp_path, 7861) as other:
        assert folder != other
        with (
            pytest.raises(UserError, match="another page is using it; choose another --port"),
            own_folder(tmp_path, 7860),
        ):
            pass
        assert folder.is_dir(), "the first one goes on"

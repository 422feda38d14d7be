"""The page's folder is empty at the start, removed at the end, and not shared."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.webpage.folder import page_folder


def test_temporary_files_are_in_it_while_the_page_is_open(tmp_path: Path) -> None:
    left = tmp_path / ".dynamicid" / "app" / "7860" / "left" / "behind.png"
    left.parent.mkdir(parents=True)
    left.touch()
    before = tempfile.gettempdir()
    with page_folder(tmp_path, 7860) as folder:
        assert not any(folder.iterdir()), "files of a killed page are removed"
        assert folder.stat().st_mode & 0o077 == 0
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
    assert tempfile.gettempdir() == before
    assert not folder.exists()


def test_two_pages_do_not_share_one(tmp_path: Path) -> None:
    taken = pytest.raises(UserError, match="another page is using it; choose another --port")
    with page_folder(tmp_path, 7860) as folder, page_folder(tmp_path, 7861) as other:
        assert folder != other
        with taken, page_folder(tmp_path, 7860):
            pass
        assert folder.is_dir(), "the first page continues"

"""Requests name files below /uploads only, and answers name no folder of the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UserError
from pipelines.webpage.page_paths import PagePaths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "aus wärts" / "uploads"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "a.png").write_bytes(b"a")
    (folder / "link").symlink_to("/etc/hostname")
    return folder


def test_an_upload_is_found_and_its_address_left_out(folder: Path) -> None:
    asked = {
        "data": [[{"path": "/uploads/x/a.png", "url": "http://192.0.2.1/a", "meta": {"_type": "x"}}], "path", None]
    }
    found = {"data": [[{"path": str(folder / "x" / "a.png"), "meta": {"_type": "x"}}], "path", None]}
    assert PagePaths(folder).check(asked) == found


@pytest.mark.parametrize(
    "path",
    [
        "http://192.0.2.1/a.png",
        "\thttp://192.0.2.1/a.png",
        "data:image/png;base64,AAAA",
        "/etc/hostname",
        "x/a.png",
        "",
        "/uploads",
        "/uploads/x",
        "/uploads/link",
        "/uploads/../uploads.png",
        "/uploads/x/../../../../../../../../etc/hostname",
        "/uploads//etc/hostname",
        "/uploads/x/a.png\0.jpg",
        "/uploads/\ud800",
        "/uploads/" + "x" * 5000,
    ],
)
@pytest.mark.parametrize("around", [lambda file: file, lambda file: {"a": [[file]]}])
def test_nothing_else_is(folder: Path, path: str, around: Any) -> None:
    with pytest.raises(UserError, match="no such upload"):
        PagePaths(folder).check(around({"path": path}))


def test_nor_is_a_picture_in_the_request(folder: Path) -> None:
    with pytest.raises(UserError, match="no such upload"):
        PagePaths(folder).check({"path": "/uploads/x/a.png", "url": " Data:image/png;base64,AAAA"})


def test_the_folder_is_hidden_however_it_is_written(folder: Path) -> None:
    paths = PagePaths(folder)
    file = str(folder / "x" / "a.png")
    for text in (file, json.dumps(file), json.dumps(file, ensure_ascii=False), f"http://here/file={quote(file)}"):
        hidden = paths.hide(text.encode()).decode()
        assert "/uploads/x/a.png" in hidden
        assert "aus" not in hidden


@settings(derandomize=True)
@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_all_other_json_is_left_as_it_is(payload: Any) -> None:
    assert PagePaths(Path("/nowhere")).check(payload) == payload or "url" in str(payload) or "path" in str(payload)

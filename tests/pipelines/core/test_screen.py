"""Whatever a file is called, its name moves no terminal and forges no line."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from pipelines.core import screen
from pipelines.core.errors import REASON_VARIABLE, leave_reason, read_reason
from tests.processes import PROJECT

EVIL = [
    "\x1b[31mred\x1b[8m.txt",
    "\x1b]0;title\x07.json",
    "\x9b2J.txt",
    "back\x08\x08\rover.json",
    "line\ndynamicid: done.txt",
    "\u202etxt.exe\u2066.json",
    "[b] and [link=x].txt",
]


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """Run the command line with a terminal as its stdout and stderr; return what the terminal gets."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "FORCE_COLOR": "1", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not got:
            break
        shown += got
    os.close(ours)
    process.wait()
    return shown.decode().replace("\r\n", "\n")


def without_own_styles(shown: str) -> str:
    """Return what a terminal got without bars and the colours that the project itself uses."""
    for own in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m", "\x1b[3m", "\x1b[A", "\r"):
        shown = shown.replace(own, "")
    return shown


def test_names_of_files_reach_a_terminal_as_escapes(tmp_path: Path, drawn_people: list[Path]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(EVIL):
        (source / name).write_text(f"label {number}")
    (source / "\x1b[5mphoto.jpg").write_bytes(drawn_people[0].read_bytes())
    (source / "\x1b[5mphoto.json").write_text('{"consent[/b]": "no \\u001b[6m", "model_release[/]": "no"}')
    params = str(PROJECT / "profiles" / "tiny.yaml")
    shown = on_a_terminal("ingest", str(source), "--out", "faces", "--no-version", "--params", params, cwd=tmp_path)
    assert r"\x1b]0;title\x07.json" in shown
    assert r"\x1b[31mred\x1b[8m.txt" in shown
    assert r"line\ndynamicid: done.txt" in shown
    for sign in ("\x1b[8m", "\x1b]", "\x1b[5m", "\x07", "\x08", "\x9b", "\u202e", "\u2066"):
        assert sign not in shown, repr(sign)
    assert "\x1b" not in without_own_styles(shown)
    assert not any(line.startswith("dynamicid: done") for line in shown.splitlines())
    assert "\x1b[31mdynamicid: " in shown, "the project's own colours stay"


def test_arguments_and_help_reach_a_terminal_as_escapes(tmp_path: Path) -> None:
    """A pattern of a shell may put the name of a stranger's file among the arguments."""
    for arguments in (("ingest", "one", "\x1b]0;two\x07"), ("\x1b[31mingest",), ("ingest", "--help")):
        shown = on_a_terminal(*arguments, cwd=tmp_path)
        assert "\x1b" not in without_own_styles(shown)
        assert "\x07" not in shown


def test_what_libraries_print_is_escaped_and_bars_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "utf-8", write_through=True))
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    screen.guard()
    screen.guard()  # a second time changes nothing
    print("name \x1b[2J\udcff", file=sys.stderr)
    assert raw.getvalue() == b"name \\x1b[2J\\udcff\n"
    for _ in tqdm(range(2), position=1, mininterval=0, ascii=True):
        pass
    assert b"\r" in raw.getvalue()
    assert b"\x1b[A" in raw.getvalue()


def test_a_table_keeps_its_shape_and_the_texts_in_it_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="faces")
    table.add_row(Text("a \x1b[31m[/b]\x07"), Text("b"))
    screen.show(table)
    shown = capsys.readouterr().err
    assert r"\x1b[31m[/b]" in shown
    assert "\x1b" not in shown


def test_numbers_in_a_table_are_whole_on_a_narrow_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("text", *(f"column\n{number}" for number in range(8)))
    table.add_row("several words", *(f"-0.{number}23456" for number in range(8)))
    screen.show(table, whole=True)
    shown = capsys.readouterr().err
    assert all(f"-0.{number}23456" in shown for number in range(8))
    assert "several words" in shown
    assert "…" not in shown


def test_a_message_is_one_line_and_what_belongs_to_it_is_indented() -> None:
    assert screen.one_message("a\nb: done") == r"a\nb: done"
    assert screen.one_message("a: does not fit\n  missing b\n") == "a: does not fit\n  missing b"
    assert screen.printable("né 名前 😀\u200d\t") == "né 名前 😀\u200d\t"


def test_the_reason_of_an_error_can_be_stored_whatever_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REASON_VARIABLE, str(tmp_path / "reason"))
    leave_reason("\udcff.jpg, \udce9t\udce9, 名前: damaged", 2)
    code, reason = read_reason(tmp_path / "reason")
    assert (code, reason) == (2, "\\xff.jpg, \\xe9t\\xe9, 名前: damaged")

"""The audit log has every deed with who, when, from where and what, only grows, and names nobody who was forgotten."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.audit import FILE, audited, read_audit
from pipelines.versions.forgotten import hashed_people

LOGIN = pwd.getpwuid(os.getuid()).pw_name
MOVE = SimpleNamespace(model_name="m", version="3", decision="promoted", champion="3", before="2", already=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNAMICID_HOME", raising=False)
    return tmp_path


def states(root: Path) -> list[tuple[str, str]]:
    return [(line["deed"], line["state"]) for line in read_audit(root).lines]


def three(root: Path) -> list[str]:
    """Write three deeds; return the six lines of the log."""
    for number in range(3):
        with audited(root, "promote", model=f"models:/m/{number}"):
            pass
    return (root / FILE).read_text().splitlines(keepends=True)


def test_a_deed_is_written_before_and_after_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    with audited(here, "promote", by="ada", model="models:/m/3") as result:
        (begun,) = read_audit(here).lines
        result["champion"] = "3"
    assert (begun["state"], begun["who"]) == ("begun", {"login": LOGIN, "by": "ada"})
    assert begun["where"] == {"machine": socket.gethostname(), "folder": str(here), "from": "192.0.2.7"}
    done = read_audit(here).lines[1]
    assert (done["state"], done["what"], done["result"]) == ("done", {"model": "models:/m/3"}, {"champion": "3"})
    assert done["id"] == begun["id"]
    assert begun["at"] <= done["at"]
    assert (here / FILE).stat().st_mode & 0o777 == 0o600
    assert read_audit(here).problems == []


@pytest.mark.parametrize("error", [UserError("no photo of Anna"), KeyboardInterrupt(), SystemExit(3), OSError("Anna")])
def test_a_deed_that_fails_is_written_without_its_message(here: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), audited(here, "forget", people=hashed_people(["Anna"])):
        raise error
    assert states(here) == [("forget", "begun"), ("forget", "failed")]
    assert read_audit(here).lines[1]["error"] == type(error).__name__
    assert "Anna" not in (here / FILE).read_text()


def folder_instead(log: Path) -> None:
    log.mkdir()


def link_instead(log: Path) -> None:
    log.with_name("other").write_text("kept")
    log.symlink_to(log.with_name("other"))


@pytest.mark.parametrize("obstacle", [folder_instead, link_instead])
def test_nothing_is_done_where_the_log_cannot_be_written(here: Path, obstacle: Callable[[Path], None]) -> None:
    (here / FILE).parent.mkdir()
    obstacle(here / FILE)
    with pytest.raises(StageFailed, match=r"cannot be written .*; nothing was done"), audited(here, "rollback"):
        pytest.fail("the deed was done")
    assert [path.read_text() for path in (here / FILE).parent.glob("other")] in ([], ["kept"])


def test_a_person_is_found_by_name_and_cannot_be_listed(here: Path) -> None:
    for names in (["Zo\u00eb", "Bert"], ["Carl"]):
        with audited(here, "forget", people=hashed_people(names)):
            pass
    text = (here / FILE).read_text()
    assert not any(name in text for name in ("Zo", "Bert", "Carl"))
    assert len(read_audit(here).about("Zoe\u0308")) == 2
    assert read_audit(here).about("Anna") == []
    salts = {pair[0] for line in read_audit(here).lines for pair in line["what"]["people"]}
    assert len(salts) == 3, "one each, so that no list of names can be tried on all at once"


def test_a_deed_that_does_not_exist_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for deed, code, message in (("promot", 2, "--deed promot: no such deed; did you mean promote?"), ("forget", 0, "")):
        with pytest.raises(SystemExit) as ended:
            main(["audit", "--deed", deed])
        assert (ended.value.code, message in capsys.readouterr().err) == (code, True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:2] + lines[3:], "before line 3, something was changed or deleted"),
        (lambda lines: lines[1:], "before line 1, something was changed or deleted"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "before line 1, something"),
        (lambda lines: [*lines[:2], lines[2].replace("m/1", "m/9"), *lines[3:]], "before line 4, something"),
        (lambda lines: [*lines[:2], lines[2][:40] + "\n", *lines[3:]], "line 3 is cut or damaged"),
        (lambda lines: [*lines, "[1]\n"], "line 7 is cut or damaged"),
        (lambda lines: [*lines, "[" * 50_000 + "\n"], "line 7 is cut or damaged"),
    ],
)
def test_a_change_shows(here: Path, change: Callable[[list[str]], list[str]], problem: str) -> None:
    (here / FILE).write_text("".join(change(three(here))))
    assert any(problem in one for one in read_audit(here).problems)
    with audited(here, "promote"):
        pass
    assert any(problem in one for one in read_audit(here).problems), "later lines do not hide it"


def test_a_line_that_a_full_disk_cut_stays_and_others_follow(here: Path) -> None:
    three(here)
    with (here / FILE).open("a") as file:
        file.write('{"at": "2026-')
    with audited(here, "promote"):
        pass
    log = read_audit(here)
    assert (len(log.lines), log.problems) == (8, ["line 7 is cut or damaged"])


def test_several_at_once_write_whole_lines(here: Path) -> None:
    def some(_: int) -> None:
        for _ in range(10):
            with audited(here, "promote", padding="x" * 5000):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, range(4)))
    log = read_audit(here)
    assert (len(log.lines), log.problems) == (80, [])


def test_the_log_is_that_of_the_checkout_of_a_workspace(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMICID_HOME", str(here / "home"))
    with audited(here, "promote"):
        pass
    assert (here / "home" / FILE).is_file()
    assert not (here / FILE).exists()


def test_a_newer_log_is_refused_by_name(here: Path) -> None:
    (here / FILE).parent.mkdir()
    (here / FILE).write_text('{"format": 9}\n')
    with pytest.raises(UserError, match=r"audit\.jsonl, line 1: the audit log in format 9"):
        read_audit(here)


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("replaced", "value", "words", "deed"),
    [
        ("registry.promotion.promote", MOVE, "promote models:/m/3 --by ada", "promote"),
        ("registry.promotion.refuse", MOVE, "promote models:/m/3 --by ada --refuse", "refuse"),
        ("registry.promotion.rollback", MOVE, "rollback --by ada", "rollback"),
        ("commands.stack.make_pipeline_account", True, "stack accounts --url http://x", "accounts"),
        ("commands.stack.make_credentials", {}, "stack credentials", "accounts"),
        ("commands.stack.start_stack", None, "stack start", "accounts"),
        ("commands.backup.restore_anywhere", SimpleNamespace(done=["x"], left=[]), "restore copy", "restore"),
    ],
)
def test_commands_write_their_deeds(
    *, here: Path, monkeypatch: pytest.MonkeyPatch, replaced: str, value: Any, words: str, deed: str
) -> None:
    seen = []
    monkeypatch.setattr(f"pipelines.{replaced}", lambda *_, **__: seen.append(states(here)) or value)
    monkeypatch.setattr("pipelines.commands.promote.emit", lambda *_: None)
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "a password")
    assert command(*words.split()) == 0
    assert seen == [[(deed, "begun")]], "before the deed"
    assert states(here) == [(deed, "begun"), (deed, "done")]


def test_forget_names_nobody(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = SimpleNamespace(tag="faces-v2")
    done = SimpleNamespace(photos=2, version=version, remaining=[], beyond=[], nothing_left=False)
    monkeypatch.setattr("pipelines.operations.forgetting.forget.forget", lambda *_, **__: done)
    for name in ("_print_report", "emit"):
        monkeypatch.setattr(f"pipelines.commands.forget.{name}", lambda *_, **__: None)
    assert command("forget", "--identity", "Zo\u00eb Mustermann", "--image-id", "ab" * 32) == 0
    text = (here / FILE).read_text()
    assert "Mustermann" not in text
    assert "ab" * 32 not in text
    assert [line["state"] for line in read_audit(here).about("Zoe\u0308 Mustermann")] == ["begun", "done"]


def test_the_command_prints_deeds_and_fails_where_one_was_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = three(here)
    with audited(here, "rollback", by="ada"):
        killed = (here / FILE).read_bytes()
    (here / FILE).write_bytes(killed)
    assert command("audit") == 0
    shown = capsys.readouterr().err
    assert f"rollback has no end in the log: by ada (login {LOGIN}), machine " in shown
    assert shown.count("promote done") == 3
    assert "7 lines, none changed" in shown
    (here / FILE).write_text("".join(lines[1:]))
    assert command("audit", "--json") == 1
    shown = capsys.readouterr().err
    assert "before line 1, something was changed or deleted: the log is not as it was written" in shown

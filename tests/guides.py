"""The commands of the guides, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.params import load_params

_BLOCK = re.compile(r"^( *)```bash\n((?:.*\n)*?)\1```|((?:^ {4}dynamicid .*\n(?:^ {5,}\S.*\n)*)+)", re.MULTILINE)


def section(page: Path, heading: str) -> str:
    """Return the text below a heading of a page, up to the next one."""
    parts = re.split(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def commands(text: str) -> Iterator[str]:
    """Yield the shell commands of a text, each with its continued lines; comments are left out."""
    for match in _BLOCK.finditer(text):
        command = ""
        for line in (match[2] or match[3]).splitlines():
            command += line + "\n"
            if not line.endswith("\\") and _is_closed(command):
                if plain := command.strip():
                    yield plain
                command = ""


def check_command(words: list[str]) -> None:
    """Fail where the words after `dynamicid` name no command, or an option that it does not have."""
    import typer

    from pipelines.cli import app

    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(command.context_class(command), name)
        assert found is not None, f"no command {name}"
        command = found
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--json", "--help"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known


def _is_closed(command: str) -> bool:
    """Whether every quote is closed."""
    import shlex

    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


PEOPLE = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}


class Shell:
    """A terminal in a checkout, in which every command is typed; after each of them the parameters are read."""

    def __init__(self, home: Path, replaced: dict[str, str]) -> None:
        self.home, self.replaced = home, replaced

    def type(self, command: str, code: int = 0) -> str:
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        # To a file: the workers of DVC's queue keep the output open for as long as they run.
        log = self.home.parent / "output"
        with log.open("w") as output:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.home,
                env={**os.environ, **PEOPLE, "PATH": path, "COLUMNS": "300"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        text = log.read_text()
        assert done.returncode == code, f"{command}\n{text[-5000:]}"
        if (self.home / "params.yaml").is_file() and not code:
            load_params(self.home / "params.yaml")
        return text

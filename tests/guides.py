"""The commands of the guides, as a reader would type them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

"""Write docs/reference/commands.md from the command line; `--check` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import typer
from page import finish, table

PAGE = Path("docs/reference/commands.md")
HEAD = """# Commands

Generated from the command line by `make reference`. `dynamicid COMMAND --help` prints the same.

Exit codes: 0 done; 1 the work failed (data, gate), with the reason; 2 wrong use or configuration. Results go
to files or, as JSON, to stdout; messages go to stderr. `--json` prints a command's report to stdout as JSON. `--params
FILE` reads another parameter file than `params.yaml`; `--set section.key=value`, repeatable, changes one parameter for
one call. Under DVC `--set` is refused, because DVC would not see the value: `dynamicid configure --set …` writes it
into the file first. `dynamicid --install-completion` lets the shell complete commands.

"""
# Described once, in `HEAD`.
_EVERYWHERE = ("--help", "--params", "--set", "--json")


def sections(command: Any, path: str, parent: Any) -> Iterator[str]:
    """Yield one section per command and subcommand: its help, its call, its arguments and options."""
    context = typer.Context(command, info_name=path, parent=parent)
    members = command.list_commands(context) if hasattr(command, "list_commands") else []
    if path != "dynamicid":
        yield f"{'#' * (len(path.split()) + 1)} {path.removeprefix('dynamicid ')}\n"
        yield f"{clean(command.help or '')}\n"
        if not members:
            usage = " ".join(command.collect_usage_pieces(context)).replace("{", "").replace("}", "")
            yield f"    {path} {usage}\n"
            records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
            rows = [(f"`{record[0]}`", clean(record[1])) for record in records if record is not None]
            if shown := [row for row in rows if not row[0].startswith(tuple(f"`{name}" for name in _EVERYWHERE))]:
                yield table(("argument or option", "meaning"), shown)
    panel = None
    for name in members:
        member = command.get_command(context, name)
        if parent is None and member.rich_help_panel != panel:
            panel = member.rich_help_panel
            yield f"## {panel}\n"
        yield from sections(member, f"{path} {name}", context)


def clean(text: str) -> str:
    """Return a help text as Markdown; `<` outside of code is escaped, since it would begin an HTML tag."""
    parts = unescape(text).split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def main() -> int:
    """Write the page, or with `--check` return 1 where it is out of date."""
    from pipelines.cli import app

    return finish(HEAD + "\n".join(sections(typer.main.get_command(app), "dynamicid", None)), PAGE)


if __name__ == "__main__":
    sys.exit(main())

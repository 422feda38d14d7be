"""`dynamicid`: the command line. The subcommands are in `pipelines/commands` and are imported when they are used."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from model.processors import waiting
from pipelines.commands.output import accepting_json
from pipelines.core.chain import known_stages
from pipelines.core.environment import adopt, check_places
from pipelines.core.errors import StageFailed, UserError, leave_reason
from pipelines.core.execution import noting
from pipelines.core.locks import staying
from pipelines.core.paths import project_root
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.core.quiet import silence_libraries
from pipelines.core.screen import say

# The commands by panel of `--help`, in the order in which they are used.
PANELS: dict[str, tuple[str, ...]] = {
    "Data": (
        *("synthesize", "ingest", "curate", "calibrate", "dataset", "validate", "preprocess", "validate-processed"),
        "export",
    ),
    "Training": (
        *("configure", "train-anchoring", "train-imr", "evaluate", "summary", "compare", "blind", "repro", "record"),
        *("generate", "app", "foundation", "convert"),
    ),
    "Registry": ("register", "promote", "rollback", "drift", "lineage", "reproduce", "retrain"),
    "Operations": (
        *(
            "doctor",
            "weights",
            "inbox",
            "workspace",
            "stack",
            "backup",
            "restore",
            "upgrade",
            "clean",
            "forget",
            "subject",
            "audit",
        ),
    ),
}
COMMANDS = {name: panel for panel, names in PANELS.items() for name in names}
# Commands whose module in pipelines.commands has another name, because it holds several commands.
_TOGETHER = {
    "validate-processed": "validate",
    "train-anchoring": "train",
    "train-imr": "train",
    "record": "repro",
    "restore": "backup",
    "register": "promote",
    "rollback": "promote",
    "reproduce": "lineage",
}


class LazyCommands(TyperGroup):
    """A command group that imports each command on first use, so that `--help` imports no heavy library."""

    def __init__(self, **settings: Any) -> None:
        # Typer suggests one of these names for a misspelt one.
        super().__init__(**settings | {"commands": dict.fromkeys(COMMANDS)})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command names in the order of `PANELS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of `cmd_name` and return the command; None for an unknown name."""
        return _command(cmd_name) if cmd_name in COMMANDS else None


@functools.cache
def _command(name: str) -> Any:
    function = name.replace("-", "_")
    module = importlib.import_module(f"pipelines.commands.{_TOGETHER.get(name, function)}")
    members = getattr(module, "app", None)
    if not isinstance(members, typer.Typer):
        members = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        members.command(name)(getattr(module, function))
    stage = next((one for one in known_stages() if one.command == name), None)
    for member in members.registered_commands:
        if member.callback is not None:
            command = member.callback if stage is None else noting(stage.name, stage.outputs, member.callback)
            member.callback = accepting_json(command)
    command = typer.main.get_command(members)
    command.name = name
    command.rich_help_panel = COMMANDS[name]  # type: ignore[attr-defined]
    return command


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"dynamicid {version('dynamicid')}{_commit(project_root())}")
        raise typer.Exit


def _commit(root: Path) -> str:
    """Return the commit of the checkout `root` in brackets, and whether its files differ; "" without a repository."""
    from pipelines.versions.git import run_git

    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    commit = run_git(root, "rev-parse", "--short=12", "HEAD")
    if commit.code:
        return ""
    changed = run_git(root, "status", "--porcelain", "--untracked-files=no").text
    return f" (commit {commit.text}{', with local changes' if changed else ''})"


@app.callback()
def root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and commit, and exit."),
    ] = False,
) -> None:
    """Turn a folder of face photos into a trained, evaluated and registered DynamicID model.

    Exit codes: 0 done; 1 the work failed (data, a gate), with the reason; 2 wrong use or configuration.
    Results for programs go to files or, as JSON, to stdout; messages go to stderr.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    adopt(restart=arguments is None)
    for name, value in (TELEMETRY_OFF | waiting()).items():
        os.environ.setdefault(name, value)
    silence_libraries()
    try:
        check_places()
        with staying(Path()):
            app(args=arguments, prog_name="dynamicid")
    except (UserError, StageFailed) as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end(_described(error), StageFailed.exit_code)
    except Exception as error:
        leave_reason(" ".join(f"{type(error).__name__}: {error}".split()), StageFailed.exit_code)
        raise


def _end(reason: str, code: int) -> NoReturn:
    """Print why the command ends, and exit."""
    leave_reason(reason, code)
    say(f"dynamicid: {reason}", "red")
    sys.exit(code)


def _described(error: OSError) -> str:
    """Return one line about a full disk, or about the file of `error`; raise `error` again where it names no file."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        # Of a copied folder: a list of (file, copy, reason). The first reason is that of all, or led to the others.
        _, copy, reason = error.args[0][0]
        number = re.match(r"\[Errno (\d+)\] ([^:]*)", str(reason))
        error = OSError(int(number[1]), number[2], str(copy)) if number else OSError(None, str(reason), str(copy))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        what = f"no space left on the disk{where}; complete results are untouched: free some space, then run again"
        return f"{what} (`dynamicid clean` lists what can go)"
    if error.filename is None or error.strerror is None:  # errors of the web have an address for a file, and no reason
        raise error
    return f"{error.filename}: {error.strerror}"


if __name__ == "__main__":
    main()

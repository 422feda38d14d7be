"""`dynamicid`: one command line; each subcommand lives in `pipelines/commands` and is imported when called.

Exit codes: 0 done; 1 the work failed (data, gate), with the reason; 2 wrong use or configuration.
Results for machines go to files or stdout as JSON, everything for people to stderr.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.privacy import TELEMETRY_OFF

# Command name → module in pipelines.commands that holds a function of the same name (dashes as underscores).
COMMANDS: dict[str, str] = {
    "synthesize": "synthesize",
    "configure": "configure",
    "ingest": "ingest",
    "curate": "curate",
    "dataset": "dataset",
    "validate": "validate",
    "preprocess": "preprocess",
    "validate-processed": "validate_processed",
    "train-anchoring": "train_anchoring",
    "train-imr": "train_imr",
    "evaluate": "evaluate",
    "blind": "blind",
    "register": "register",
    "promote": "promote",
    "rollback": "rollback",
    "drift": "drift",
    "lineage": "lineage",
    "reproduce": "reproduce",
    "clean": "clean",
    "backup": "backup",
    "restore": "restore",
    "record": "record",
    "repro": "repro",
    "summary": "summary",
    "generate": "generate",
    "app": "app",
    "convert": "convert",
    "export": "export",
    "forget": "forget",
    "foundation": "foundation",
    "workspace": "workspace",
    "retrain": "retrain",
    "inbox": "inbox",
    "stack": "stack",
}


# Import-time remarks of libraries about things that are not used here.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


class LazyCommands(TyperGroup):
    """A command group whose members are imported on first use, so that `--help` needs no heavy library."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command names in the order of the chain."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of `cmd_name` and return its command, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pipelines.commands.{COMMANDS[cmd_name]}")
        if isinstance(getattr(module, "app", None), typer.Typer):
            group = typer.main.get_group(module.app)
            group.name = cmd_name
            return group
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(cmd_name)(getattr(module, cmd_name.replace("-", "_")))
        return typer.main.get_command(app)


app = typer.Typer(
    cls=LazyCommands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)


@app.callback()
def root() -> None:
    """From a folder of face photos to a registered, evaluated DynamicID model."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for name, value in {**TELEMETRY_OFF, **QUIET}.items():
        os.environ.setdefault(name, value)
    try:
        app(args=arguments, prog_name="dynamicid")
    except (UserError, StageFailed) as error:
        typer.secho(f"dynamicid: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        told = f"no space left on the disk{where}; what was complete before is untouched: free some, then run again"
        typer.secho(f"dynamicid: {told} (`dynamicid clean` says what could go)", fg=typer.colors.RED, err=True)
        sys.exit(StageFailed.exit_code)


if __name__ == "__main__":
    main()

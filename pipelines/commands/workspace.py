"""`dynamicid workspace`: the clone of the repository in which one run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import NewFolder, RunId, argument, command_group, option
from pipelines.commands.output import emit, say
from pipelines.core.errors import StageFailed
from pipelines.versions import handover
from pipelines.versions import workspace as workspaces
from pipelines.versions.git_tags import is_remote

app = command_group("Create, save, restore and remove the clone of the repository in which one run works.")

Home = Annotated[Path, option("Checkout to clone.", metavar="DIR", envvar="DYNAMICID_HOME")]
# Names a file for the path of the workspace, whose pages Airflow links.
_NOTE = "DYNAMICID_WORKSPACE_FILE"


@app.command()
def create(
    run_id: RunId,
    home: Home = Path(),
    temporary: Annotated[bool, option("Nothing of it is kept; `clean` removes it by age.", "--temporary")] = False,
) -> None:
    """Create the workspace of a run, or find it; print its path as the last line."""
    folder = str(handover.begin(home, run_id, temporary=temporary).path)
    emit({"workspace": folder}, folder)


@app.command()
def run(
    words: Annotated[list[str], argument("Command of dynamicid and its options, after `--`.")],
    run_id: RunId,
    home: Home = Path(),
    bring: Annotated[
        list[str] | None, option("Input to pull on another machine; `.`: all. Repeatable.", metavar="PATH")
    ] = None,
    keep: Annotated[list[str] | None, option("Folder to hand to other machines; repeatable.", metavar="PATH")] = None,
) -> None:
    """Run a command in the workspace of a run; one of several machines brings its inputs and hands over its results."""
    work = handover.enter(home, run_id)
    _remove(handover.removed_elsewhere(work.home))
    handover.bring(work, bring or ())
    if note := os.environ.get(_NOTE):
        Path(note).write_text(str(work.path), encoding="utf-8")
    command = [sys.executable, "-m", "pipelines.cli", *words]  # the code of the run, in the workspace
    environment = {**os.environ, **work.environment()}
    if not is_remote(work.home):
        sys.stdout.flush()
        os.chdir(work.path)
        os.execve(command[0], command, environment)
    # A scheduler sends the signal to the whole group: the command ends by it, and then this process.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    code = subprocess.run(command, cwd=work.path, env=environment, check=False).returncode
    signal.signal(signal.SIGTERM, before)
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)
    handover.hand_over(work, keep or ())


@app.command()
def remove(run_id: RunId, home: Home = Path()) -> None:
    """Remove the workspace of a run, unless a process is using it; print the bytes as JSON.

    Of several machines, the others remove theirs at their next task, or `dynamicid clean --apply`.
    """
    home = home.resolve()
    folder = workspaces.workspace_of(home, run_id)
    count = size = 0
    if folder.is_dir():
        count, size = _remove([folder])
        if not count:
            raise StageFailed(f"{folder}: a process is using it; wait for it to end")
    handover.end(home, run_id)
    say(f"{folder}: removed, {size} bytes" if count else f"{folder}: there is none")
    emit({"removed": count, "bytes": size})


def _remove(folders: list[Path]) -> tuple[int, int]:
    """Remove workspaces that no process is using; return their number and their bytes."""
    from pipelines.operations.retention import remove as remove_items
    from pipelines.operations.retention import workspace_item

    return remove_items(map(workspace_item, folders))


@app.command()
def save(run_id: RunId, home: Home = Path()) -> None:
    """Save the run as a DVC experiment of the checkout; print its name as the last line."""
    if is_remote(home):
        handover.bring(handover.enter(home, run_id), (handover.ALL,))
    name = workspaces.save(home, run_id)
    emit({"experiment": name}, name)


@app.command()
def restore(run: Annotated[str, argument("Id or name of the run.")], out: NewFolder, home: Home = Path()) -> None:
    """Restore a saved run to a new folder, where `dvc repro` has nothing left to do."""
    folder = str(workspaces.restore(home, run, out))
    emit({"workspace": folder}, folder)

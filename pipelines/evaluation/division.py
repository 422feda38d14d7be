"""Processes that draw and judge batches of an evaluation, each with a pipeline and judges of its own.

The evaluation gives each process its next batch when it has finished one, through a pipe that only the two hold: a
process that dies, by whatever cause, closes it, and so does the evaluation.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import share
from pipelines.core.params import Params
from pipelines.evaluation.batches import Batch, work_on
from pipelines.evaluation.picture_store import PictureStore
from pipelines.versions.state import LOCK

if TYPE_CHECKING:
    from pipelines.evaluation.sampling import CellRenderer

_JOIN_SECONDS = 10


class Helpers:
    """`params.evaluate.processes` processes that write to the store in `folder`, begun when they are needed.

    Process n uses CUDA device n, counted round. Use it as a context.
    """

    def __init__(self, params: Params, folder: Path) -> None:
        self._params, self._folder = params, folder
        self._processes: dict[connection.Connection, Any] = {}

    def __enter__(self) -> Helpers:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes; what they have drawn is kept."""
        for pipe, process in self._processes.items():
            pipe.close()
            process.terminate()
        for process in self._processes.values():
            process.join(_JOIN_SECONDS)

    def run(self, renderer: CellRenderer, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield each batch when it is written. Raises StageFailed, naming it, where a process dies."""
        waiting, busy = list(reversed(list(batches))), dict[connection.Connection, Batch]()
        if waiting and not self._processes:
            self._begin()
        idle = list(self._processes)
        while waiting or busy:
            while waiting and idle:
                pipe = idle.pop()
                busy[pipe] = waiting.pop()
                with suppress(OSError):  # a process that has died is named below
                    pipe.send((renderer.adapter, busy[pipe]))
            for pipe in [one for one in connection.wait(list(busy)) if isinstance(one, connection.Connection)]:
                self._check(pipe)
                idle.append(pipe)
                yield busy.pop(pipe)

    def _begin(self) -> None:
        spawn, count = get_context("spawn"), self._params.evaluate.processes
        for number in range(count):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, number, count, self._params, self._folder)
            process = spawn.Process(target=_help, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    def _check(self, pipe: connection.Connection) -> None:
        """Take the answer of a process; raise what went wrong in it, or that it died."""
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            process = self._processes[pipe]
            process.join(_JOIN_SECONDS)
            code = process.exitcode
            how = f"with code {code}" if code is None or code >= 0 else f"by {signal.Signals(-code).name}"
            raise StageFailed(
                f"evaluate: drawing process {process.pid} ended {how}; where memory is short, lower "
                "evaluate.processes or evaluate.batch_size. What is drawn is kept: evaluate again to go on"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            raise StageFailed(f"evaluate: drawing process {self._processes[pipe].pid} failed: {answer}")


def _help(pipe: connection.Connection, number: int, count: int, params: Params, folder: Path) -> None:
    """Draw and judge every batch that comes through `pipe`, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the evaluation is interrupted, and closes the pipe
    os.environ["LOCAL_WORLD_SIZE"] = str(count)  # the processes share the cores (model/processors.py)
    from pipelines.evaluation.evaluate import load_renderer
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.sampling import use_device

    use_device(number)
    judges, store = None, PictureStore(folder)
    loaded: dict[Path, CellRenderer] = {}
    # Like the evaluation, also for the last batch of one that was killed.
    lock = share(folder / LOCK, StageFailed(f"{folder}: it is being emptied"))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError), lock:
        while True:
            adapter, batch = pipe.recv()
            answer: object = None
            try:
                judges = judges or load_judges(params)
                if adapter not in loaded:
                    loaded = {adapter: load_renderer(params, adapter)}
                work_on(batch, loaded[adapter], judges, store)
            except (UserError, StageFailed) as error:
                answer = error
            except Exception as error:
                traceback.print_exc()
                answer = f"{type(error).__name__}: {error}"
            pipe.send(answer)

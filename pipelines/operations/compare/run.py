"""Compare: train every cell, evaluate it, record it, and write the table; what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.files import folder_sha256, mark_used, write_atomically
from pipelines.core.locks import share
from pipelines.core.params import Params
from pipelines.core.screen import say
from pipelines.core.words import counted
from pipelines.evaluation.headline import S
from pipelines.evaluation.sampling import SAMPLED
from pipelines.evaluation.variants import CEILING, FLOOR, MODEL, TEXT_ONLY
from pipelines.operations.compare.evaluate import REPORT, Evaluated, evaluated, seen_as
from pipelines.operations.compare.figures import Cell, Figures, check_comparable, figures_of, other_questions
from pipelines.operations.compare.keys import evaluation_key, photos_key, refuse_equal, training_key
from pipelines.operations.compare.page import DOCUMENT, PAGE, TABLE, CellResult, Comparison, file_name
from pipelines.operations.compare.plan import Row
from pipelines.operations.compare.record import Recorder, recording
from pipelines.operations.compare.tables import seeds_text
from pipelines.operations.compare.train import ADAPTER, CURVES, train
from pipelines.versions.state import COMPARE, EVALUATION, LOCK, shared_state

# Folders in the state: adapters and their costs, and evaluations, each named by all that it depends on.
TRAINED, EVALUATED = "trained", "evaluated"
_REPORTS = "cells"


@dataclass(frozen=True)
class _Task:
    """One cell to do: `training` names its folder, None where nothing is trained; `variants` are drawn beside it.

    `made_from` is the name of the training, or the hash of the adapter that is there.
    """

    row: Row
    seed: int | None
    params: Params
    training: str | None
    made_from: str
    variants: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"


def compare(rows: Sequence[Row], processed: Path, root: Path, out: Path, *, record: bool = True) -> Comparison:
    """Do every cell of `rows` on the photos of `processed`, write the results into `out`, and return them.

    The checkout `root` stays as it is: adapters and evaluations are in its state. Raises UserError where two rows
    are the same, or were evaluated under different conditions, and what trainings and evaluations raise.
    """
    refuse_equal(rows)
    top = shared_state(root) / COMPARE
    with share(top / LOCK, StageFailed(f"{top}: `forget` or `clean` is at work there; wait for it to end")):
        held_out = _held_out(rows, processed)
        photos = photos_key(rows[0].params, processed) if any(row.method for row in rows) else ""
        tasks = _tasks(rows, photos)
        key = _key(tasks, held_out)
        with recording(root, key, [row.name for row in rows]) if record else nullcontext() as recorder:
            done = [_do(task, processed, root, recorder, held_out[task.row.name]) for task in tasks]
            comparison = _compared(rows, tasks, done, root)
            out.mkdir(parents=True, exist_ok=True)
            comparison = replace(comparison, cells=_with_reports(comparison.cells, done, out))
            write_atomically(out / DOCUMENT, comparison.text())
            write_atomically(out / TABLE, comparison.table())
            write_atomically(out / PAGE, comparison.page())
            if recorder is not None:
                recorder.log_results([out / DOCUMENT, out / TABLE, out / PAGE], comparison.cells[0].document)
    return comparison


@dataclass(frozen=True)
class _Done:
    """A cell that is done: its evaluation, adapter, cost, and the run that recorded it."""

    evaluation: Evaluated
    adapter: Path
    cost: dict[str, Any] | None
    run: str | None


def _tasks(rows: Sequence[Row], photos: str) -> list[_Task]:
    """Return the cells that have an adapter; pictures of the base model alone are drawn beside those of the first."""
    tasks: list[_Task] = []
    text_only = any(row.is_text_only for row in rows)
    for row in (row for row in rows if not row.is_text_only):
        for seed in row.seeds:
            training = None if row.method is None else training_key(row, seed, photos)
            variants = (TEXT_ONLY,) if text_only and not tasks else ()
            made_from = training or (folder_sha256(row.adapter) if row.adapter else "")
            tasks.append(_Task(row, seed, row.with_seed(seed), training, made_from, variants))
    return tasks


def _key(tasks: Sequence[_Task], held_out: Mapping[str, str]) -> str:
    """Return what identifies a comparison: its cells, and how they are evaluated."""
    cells = []
    for task in tasks:
        asked = task.params.evaluate.model_dump(mode="json")
        cells.append([task.name, task.made_from, held_out[task.row.name], asked, task.variants])
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:32]


def _held_out(rows: Sequence[Row], processed: Path) -> dict[str, str]:
    """Return what identifies the questions to each row and their photos; raise UserError where these differ.

    An adapter that ships with a list of the people whom it saw may leave some of them out.
    """
    from pipelines.evaluation.evaluate import questions_of

    found: dict[Path | None, tuple[str, str, int]] = {}
    for row in rows:
        if row.adapter not in found:
            questions, photos = questions_of(row.params, processed, *([] if row.adapter is None else [row.adapter]))
            found[row.adapter] = (questions.hash, photos.digest(), len(questions.people))
        (own, _, people), (its, _, others) = found[rows[0].adapter], found[row.adapter]
        if own != its:
            raise other_questions((rows[0].name, own, people), (row.name, its, others))
    return {row.name: " ".join(found[row.adapter][:2]) for row in rows}


def _do(task: _Task, processed: Path, root: Path, recorder: Recorder | None, held_out: str) -> _Done:
    """Train, evaluate and record one cell, but for what is done; `held_out` identifies its questions."""
    row, cost, top = task.row, None, shared_state(root) / COMPARE
    cell = hashlib.sha256(f"{task.made_from} {task.name}".encode()).hexdigest()[:32]
    known = None if recorder is None else recorder.known(cell)
    with _run(recorder, known, cell, task) as run:
        adapter, losses = row.adapter, dict[str, Path]()
        if task.training is not None and row.method is not None:
            folder = top / TRAINED / task.training
            cost = train(task.name, task.params, row.method, processed, folder)
            mark_used(folder / "cost.json")
            adapter, losses = folder / ADAPTER, {name: folder / stage / "losses.csv" for name, stage in CURVES.items()}
        assert adapter is not None
        key = evaluation_key(task.params, adapter, held_out, task.variants)
        place = top / EVALUATED / key
        if not place.is_dir():
            say(f"{task.name}: evaluate")
        files: dict[str, Any] = {"variants": task.variants, "losses": losses, "work": shared_state(root) / EVALUATION}
        found = evaluated(task.params, processed, adapter, place, **files)
        if recorder is not None and run is not None and known is None:
            recorder.log(run, task.params, found.document, place, cost)
            if task.training is not None:
                recorder.log_training(run, top / TRAINED / task.training)
    return _Done(found, adapter, cost, known or run)


@contextmanager
def _run(recorder: Recorder | None, known: str | None, cell: str, task: _Task) -> Iterator[str | None]:
    """Yield the run in which a cell is recorded: none without a recorder, the known one where it is recorded."""
    if recorder is None or known is not None:
        yield known
        return
    method = task.row.method
    with recorder.cell(cell, task.name, "" if method is None else method.name) as run:
        yield run


def _compared(rows: Sequence[Row], tasks: Sequence[_Task], done: Sequence[_Done], root: Path) -> Comparison:
    """Return the results of cells that are done; raise UserError where their conditions differ."""
    beside = done[0].evaluation
    cells: dict[str, list[Cell]] = {}
    results: list[CellResult] = []
    for row in rows:
        mine = [(task, one) for task, one in zip(tasks, done, strict=True) if task.row is row]
        if row.is_text_only:
            cells[row.name] = [_cell(row.name, beside, TEXT_ONLY)]
            results.append(CellResult(row, None, seen_as(beside.document, TEXT_ONLY)))
        else:
            cells[row.name] = [_cell(task.name, one.evaluation, MODEL) for task, one in mine]
            results += [
                CellResult(
                    row, task.seed, one.evaluation.document, _shown(one.adapter, root), run=one.run, cost=one.cost
                )
                for task, one in mine
            ]
    varied = [name for name in SAMPLED if len({getattr(row.params.evaluate, name) for row in rows}) > 1]
    check_comparable([cell for row in cells.values() for cell in row], varied)
    settings = rows[0].params.evaluate
    figures = figures_of(cells, settings.bootstrap, settings.seed)
    people = len(next(iter(cells.values()))[0].ends[FLOOR])
    return Comparison(rows, results, figures, _pictures(rows, tasks, done), people)


def _cell(name: str, found: Evaluated, variant: str) -> Cell:
    ends = {end: found.units[end]["id_similarity"] for end in (FLOOR, CEILING)}
    return Cell(name, seen_as(found.document, variant), found.units[variant], ends)


def _pictures(rows: Sequence[Row], tasks: Sequence[_Task], done: Sequence[_Done]) -> list[dict[str, Any]]:
    """Return the rows of pictures, each with a tile of the first seed of every row."""
    first = {id(task.row): one.evaluation for task, one in reversed(list(zip(tasks, done, strict=True)))}
    lines = []
    for number, line in enumerate(done[0].evaluation.pictures):
        drawn = [
            line["drawn"][TEXT_ONLY] if row.is_text_only else first[id(row)].pictures[number]["drawn"][MODEL]
            for row in rows
        ]
        lines.append({**line, "drawn": drawn})
    return lines


def _with_reports(cells: Sequence[CellResult], done: Sequence[_Done], out: Path) -> list[CellResult]:
    """Copy the report of every evaluation below `out`, and return the cells with their paths."""
    waiting, found = iter(done), []
    shutil.rmtree(out / _REPORTS, ignore_errors=True)
    (out / _REPORTS).mkdir()
    for cell in cells:
        name = None
        if not cell.row.is_text_only:
            name = f"{_REPORTS}/{file_name(cell.name)}.html"
            shutil.copyfile(next(waiting).evaluation.folder / REPORT, out / name)
        found.append(replace(cell, report=name))
    return found


def _shown(folder: Path, root: Path) -> str:
    """Return a folder as pages show it: relative to the checkout, and nothing of the machine where it is elsewhere."""
    path, home = folder.resolve(), root.resolve()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else f"{path.parent.name}/{path.name}"


def summary_of(comparison: Comparison) -> list[str]:
    """Return a line for every row: the similarity s, its interval and spread, and the difference to the first row."""
    figures: Figures = comparison.figures
    lines = []
    for row in comparison.rows:
        figure = figures.values[row.name][S]
        if figure.value is None or figure.interval is None:
            lines.append(f"{row.name}: s not measurable ({figure.reason})")
            continue
        text = f"{row.name}: s {figure.value:.3f} ({figure.interval.low:.3f} … {figure.interval.high:.3f})"
        text += "" if row.is_text_only else f", {seeds_text(figure, S)}"
        if (gap := figures.differences.get(row.name, {}).get(S)) is not None and gap.interval is not None:
            low, high = gap.interval.low, gap.interval.high
            text += f"; to {comparison.rows[0].name} {gap.value:+.3f} ({low:+.3f} … {high:+.3f})"
        lines.append(text)
    count = len([cell for cell in comparison.cells if cell.adapter])
    return [*lines, f"{counted(count, 'cell')}, {counted(comparison.people, 'person', 'people')}"]

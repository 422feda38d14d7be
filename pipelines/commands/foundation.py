"""`dynamicid foundation`: draw people for the small networks; train, measure, check and ship the networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from model.foundation import manifest
from model.foundation.edition import SHIPPED, edition_of
from model.foundation.gates import Figures, check_gates
from pipelines.commands.options import (
    DEFAULT_PARAMS,
    Overrides,
    ParamsFile,
    argument,
    command_group,
    option,
    read_params,
    wrong_use,
)
from pipelines.commands.output import emit, say
from pipelines.core.chain import ADAPTER, METRICS, PROCESSED
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.paths import refuse_pointers
from pipelines.core.screen import show
from pipelines.core.words import counted
from pipelines.stages.photograph_base import AUTOENCODER, train_base
from pipelines.stages.photograph_base import WORK as PHOTOGRAPH_WORK

app = command_group("Train, measure, check and ship the small networks of the project.")

WORK = Path(".dynamicid/foundation")
Work = Annotated[
    Path | None,
    option(f"Folder for people, checkpoints and figures; {WORK} by default, in it edition-2 for edition 2."),
]
EditionNumber = Annotated[int, option("Edition: 1, or 2 for larger pictures of up to four people.", "--edition")]
Weights = Annotated[Path | None, option("Folder of the networks; that of the edition by default.")]
Parts = Annotated[list[str] | None, option("Only this part, repeatable.", "--part", metavar="PART")]
Workers = Annotated[int, option("Processes that draw.", min=1)]


@app.command()
def draw(
    *,
    work: Work = None,
    people: Annotated[int, option("How many people.", min=2)] = 700,
    photos: Annotated[int, option("Photos of each.", min=1)] = 28,
    size: Annotated[int, option("Side of the photos in pixels.", min=32)] = 128,
    seed: Annotated[int, option("Random seed; another seed draws other people.", min=0)] = 0,
    groups: Annotated[
        float | None,
        option("Number of pictures of several people, relative to the others; by default that of the edition.", min=0),
    ] = None,
    edition: EditionNumber = SHIPPED,
    workers: Workers = 2,
) -> None:
    """Draw the missing pictures of the training set into WORK/people."""
    from model.foundation.render import render_people
    from pipelines.data.synthetic.foundation_people import draw as drawer

    with _plain_errors():
        shapes = edition_of(edition).people.shapes
        if groups is not None:
            each = round(people * photos * groups / max(len(shapes), 1))
            shapes = tuple(replace(shape, pictures=each) for shape in shapes)
        settings = {"people": people, "photos": photos, "size": size, "seed": seed}
        share = 0.08 if groups is None else groups
        folder = _work(work, edition) / "people"
        data = render_people(folder, drawer, **settings, workers=workers, groups=share, shapes=shapes)
    several = sum(len(one.prompts) for one in data.groups)
    held_out = people - data.first_held_out
    emit({"photos": len(data.photos), "groups" if shapes else "pairs": several, "people_held_out": held_out})


@app.command()
def train(
    *,
    parts: Parts = None,
    work: Work = None,
    weights: Weights = None,
    steps_scale: Annotated[float, option("Multiplies the steps of every part.", min=0)] = 1.0,
    edition: EditionNumber = SHIPPED,
    workers: Workers = 2,
    photographs: Annotated[
        Path | None, option("Preprocessed photos: train a base of them instead.", "--from", metavar="DIR")
    ] = None,
    autoencoder: Annotated[Path, option("With --from: folder of the autoencoder.")] = AUTOENCODER,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train the unfinished parts in order, from their last checkpoints; write the manifest when all are finished."""
    if photographs is not None:
        with _plain_errors():
            made = train_base(
                photographs,
                read_params(params, overrides),
                work=work or PHOTOGRAPH_WORK,
                weights=weights,
                autoencoder=autoencoder,
                parts=parts,
                steps_scale=steps_scale,
            )
        _show(made["figures"])
        emit(made)
        return
    from model.foundation.measure import sample_of
    from model.foundation.train import train_foundation
    from pipelines.data.synthetic.foundation_people import draw as drawer

    with _plain_errors():
        folder = weights or manifest.folder_of(edition)
        done = train_foundation(
            _work(work, edition),
            folder,
            drawer,
            parts=parts,
            steps_scale=steps_scale,
            workers=workers,
            sample=sample_of(edition_of(edition)),
            edition=edition_of(edition),
        )
    if done.missing:
        manifest_ = "the manifest is not complete" if done.manifest else "no manifest yet"
        say(f"{folder}: {manifest_}; not trained: {', '.join(done.missing)}")
    _show(done.figures)
    written = None if done.manifest is None else str(done.manifest)
    emit({"figures": done.figures, "manifest": written, "missing": list(done.missing)})


@app.command()
def measure(
    *,
    parts: Parts = None,
    work: Work = None,
    weights: Weights = None,
    pictures: Annotated[int, option("How many pictures are generated from text.", min=1)] = 140,
    steps: Annotated[int, option("Denoising steps per picture.", min=1)] = 20,
    guidance: Annotated[float, option("Guidance scale.", min=0)] = 3.0,
    rescale: Annotated[float, option("Guidance rescale.", min=0, max=1)] = 0.7,
    adapter: Annotated[
        Path | None, option("Adapter folder whose tokens and IMR are measured; the shipped one by default.")
    ] = None,
    record: Annotated[bool, option("Also write the figures into the manifest.", "--record")] = False,
    edition: EditionNumber = SHIPPED,
    workers: Workers = 1,
) -> None:
    """Measure the networks on people in no training set; print the figures of every gate as JSON."""
    from model.foundation.measure import measure_foundation, sample_of
    from model.foundation.text_to_image import Sampling
    from pipelines.data.synthetic.foundation_people import draw as drawer

    with _plain_errors():
        folder = weights or manifest.folder_of(edition)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of weights; `dynamicid foundation train` makes one")
    refuse_pointers(folder.rglob("*"))
    sample = sample_of(edition_of(edition), Sampling(pictures, steps, guidance, rescale))
    if record:
        # Checked before the slow measurement.
        if adapter is not None:
            raise UserError("--record writes figures of the shipped adapter: leave out --adapter, or ship it first")
        if sample.drawn != Sampling():
            raise UserError(
                "--record needs the default settings: leave out --pictures, --steps, --guidance and --rescale"
            )
        _refuse_changed(folder)
    if adapter is not None and not (adapter / "adapter.safetensors").is_file():
        raise UserError(f"{adapter}: no adapter here (adapter.safetensors is missing); expected a trained adapter")
    with _plain_errors():
        figures, missing = measure_foundation(
            folder,
            _work(work, edition),
            drawer,
            sample,
            parts=parts,
            adapter=adapter,
            workers=workers,
            edition=edition_of(edition),
        )
    lacking = [f"{part}: not measured, {', '.join(files)} missing in {folder}" for part, files in missing.items()]
    for line in lacking:
        say(line)
    _show(figures)
    if record:
        known = manifest.read(folder)
        names = {**known["recipe"], **known["figures"], **figures}
        merged = {name: {**known["figures"].get(name, {}), **figures.get(name, {})} for name in names}
        manifest.write(folder, known["recipe"], merged, known.get("begun"))
    gates = [vars(result) for result in check_gates(figures)]
    emit({"figures": figures, "gates": gates, "missing": missing})
    if parts and lacking:
        # Without --part, missing parts are only reported.
        raise UserError("; ".join(lacking))


@app.command()
def check(weights: Weights = None, *, edition: EditionNumber = SHIPPED) -> None:
    """Compare the networks with their manifest and show its figures; exit 1 where a file differs."""
    with _plain_errors():
        folder = weights or manifest.folder_of(edition)
        known = manifest.read(folder)
    _show(known["figures"])
    _refuse_changed(folder)
    emit({"files": len(known["files"]), "bytes": known["bytes"], "figures": known["figures"]})


@app.command()
def ship(
    adapter: Annotated[Path, argument("Folder of a trained adapter.")] = Path(ADAPTER),
    *,
    metrics: Annotated[Path, option("Metrics file of its evaluation.")] = Path(METRICS),
    file: ParamsFile = DEFAULT_PARAMS,
    before: Annotated[
        list[Path] | None, option("Parameter file of an earlier anchoring training; repeatable, in order.")
    ] = None,
    processes: Annotated[int, option("Number of processes that trained it.", min=1)] = 1,
    weights: Weights = None,
    processed: Annotated[Path, option("Processed photos that it was trained on, to list their people.")] = Path(
        PROCESSED
    ),
) -> None:
    """Add an adapter, one byte per weight, to the networks it was trained on, with its parameters and figures."""
    from model.foundation.shipped_adapter import ship as put
    from pipelines.evaluation.shipping import people_ledger, read_legs, read_metrics, recipe_of

    legs = read_legs([*(before or ()), file], adapter)
    document = read_metrics(metrics, adapter, legs[-1].profile)
    folder = weights or manifest.WEIGHTS
    _refuse_changed(folder)
    similarity = document["normalised"]["model"]["id_similarity"]
    figures = {
        name: one["value"] for name, one in {"s": similarity, **document["model"]}.items() if one["value"] is not None
    }
    with _plain_errors():
        shipped = put(adapter, folder, recipe_of(legs, processes, document), figures, people_ledger(processed))
    emit({"adapter": str(shipped), "figures": figures})


def _work(work: Path | None, edition: int) -> Path:
    """Return the folder of a training: `work`, or that of the edition."""
    return work or (WORK if edition == SHIPPED else WORK / f"edition-{edition}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the exceptions of `model.foundation` into UserError and StageFailed."""
    try:
        with wrong_use(ValueError, before="foundation: "):
            yield
    except FloatingPointError as error:
        raise StageFailed(f"foundation: {error}: lower RATE or RATES of this network in model/foundation") from error


def _refuse_changed(folder: Path) -> None:
    with _plain_errors():
        problems = manifest.check(folder)
    for problem in problems:
        say(f"{problem.file}: {problem.reason}")
    if problems:
        named = ", ".join(problem.file for problem in problems[:5]) + (", …" if len(problems) > 5 else "")
        raise StageFailed(
            f"{folder}: not as in the manifest: {counted(len(problems), 'file')} ({named}); "
            "restore them or run `dynamicid foundation train`"
        )


def _show(figures: Figures) -> None:
    """Print gates and figures as tables on stderr."""
    from rich.table import Table

    gates = Table("part", "gate", "bound", "reached", "", title="Gates")
    for gate in check_gates(figures):
        bound = f"{'≤' if gate.at_most else '≥'} {gate.bound}"
        verdict = "[green]passed[/]" if gate.passed else "[red]missed[/]"
        gates.add_row(gate.part, gate.what, bound, _short(gate.value), verdict)
    if gates.row_count:
        show(gates)
    table = Table("part", "figures", title="Figures")
    for part, values in figures.items():
        table.add_row(part, ", ".join(f"{name} {_short(value)}" for name, value in values.items()))
    if table.row_count:
        show(table)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""`dynamicid foundation`: draw people for the small networks; train, measure, check and ship the networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from model.foundation import manifest
from model.foundation.gates import Figures, check_gates
from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, argument, command_group, option, wrong_use
from pipelines.commands.output import emit, say
from pipelines.core.chain import ADAPTER, METRICS
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.paths import refuse_pointers
from pipelines.core.screen import show

app = command_group("Train, measure, check and ship the small networks of the project.")

Work = Annotated[Path, option("Folder for people, checkpoints and figures.")]
Weights = Annotated[Path | None, option("Folder of the networks; that of the project by default.")]
Parts = Annotated[list[str] | None, option("Only this part, repeatable.", "--part", metavar="PART")]
Workers = Annotated[int, option("Processes that draw.", min=1)]

WORK = Path(".dynamicid/foundation")


@app.command()
def draw(
    *,
    work: Work = WORK,
    people: Annotated[int, option("How many people.", min=2)] = 700,
    photos: Annotated[int, option("Photos of each.", min=1)] = 28,
    size: Annotated[int, option("Side of the photos in pixels.", min=32)] = 128,
    seed: Annotated[int, option("Random seed; another seed draws other people.", min=0)] = 0,
    groups: Annotated[float, option("Number of pictures of two people, relative to the others.", min=0)] = 0.08,
    workers: Workers = 2,
) -> None:
    """Draw the missing pictures of the training set into WORK/people."""
    from model.foundation.people import render_people
    from pipelines.data.synthetic.foundation_people import draw as drawer

    with _plain_errors():
        data = render_people(
            work / "people", drawer, people=people, photos=photos, size=size, seed=seed, workers=workers, groups=groups
        )
    held_out = people - data.first_held_out
    emit({"photos": len(data.photos), "pairs": len(data.group_prompts), "people_held_out": held_out})


@app.command()
def train(
    *,
    parts: Parts = None,
    work: Work = WORK,
    weights: Weights = None,
    steps_scale: Annotated[float, option("Multiplies the steps of every part.", min=0)] = 1.0,
    workers: Workers = 2,
) -> None:
    """Train the unfinished parts in order, from their last checkpoints; write the manifest when all are finished."""
    from model.foundation.train import train_foundation
    from pipelines.data.synthetic.foundation_people import draw as drawer

    folder = weights or manifest.WEIGHTS
    with _plain_errors():
        done = train_foundation(work, folder, drawer, parts=parts, steps_scale=steps_scale, workers=workers)
    if done.missing:
        say(f"{folder}: no manifest yet; not trained: {', '.join(done.missing)}")
    _show(done.figures)
    written = None if done.manifest is None else str(done.manifest)
    emit({"figures": done.figures, "manifest": written, "missing": list(done.missing)})


@app.command()
def measure(
    *,
    parts: Parts = None,
    work: Work = WORK,
    weights: Weights = None,
    pictures: Annotated[int, option("How many pictures are generated from text.", min=1)] = 140,
    steps: Annotated[int, option("Denoising steps per picture.", min=1)] = 20,
    guidance: Annotated[float, option("Guidance scale.", min=0)] = 3.0,
    rescale: Annotated[float, option("Guidance rescale.", min=0, max=1)] = 0.7,
    adapter: Annotated[
        Path | None, option("Adapter folder whose tokens and IMR are measured; the shipped one by default.")
    ] = None,
    record: Annotated[bool, option("Also write the figures into the manifest.", "--record")] = False,
    workers: Workers = 1,
) -> None:
    """Measure the networks on people in no training set; print the figures of every gate as JSON."""
    from model.foundation.measure import Sample, measure_foundation
    from model.foundation.text_to_image import Sampling
    from pipelines.data.synthetic.foundation_people import draw as drawer

    folder = weights or manifest.WEIGHTS
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of weights; `dynamicid foundation train` makes one")
    refuse_pointers(folder.rglob("*"))
    sample = Sample(drawn=Sampling(pictures, steps, guidance, rescale))
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
            folder, work, drawer, sample, parts=parts, adapter=adapter, workers=workers
        )
    lacking = [f"{part}: not measured, {', '.join(files)} missing in {folder}" for part, files in missing.items()]
    for line in lacking:
        say(line)
    _show(figures)
    if record:
        known = manifest.read(folder)
        names = {**known["recipe"], **known["figures"], **figures}
        merged = {name: {**known["figures"].get(name, {}), **figures.get(name, {})} for name in names}
        manifest.write(folder, known["recipe"], merged)
    gates = [vars(result) for result in check_gates(figures)]
    emit({"figures": figures, "gates": gates, "missing": missing})
    if parts and lacking:
        # Without --part, missing parts are only reported.
        raise UserError("; ".join(lacking))


@app.command()
def check(weights: Weights = None) -> None:
    """Compare the networks with their manifest and show its figures; exit 1 where a file differs."""
    folder = weights or manifest.WEIGHTS
    with _plain_errors():
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
) -> None:
    """Add an adapter, one byte per weight, to the networks it was trained on, with its parameters and figures."""
    from model.foundation.shipped_adapter import ship as put
    from pipelines.evaluation.shipping import read_legs, read_metrics, recipe_of

    legs = read_legs([*(before or ()), file], adapter)
    document = read_metrics(metrics, adapter, legs[-1].profile)
    folder = weights or manifest.WEIGHTS
    _refuse_changed(folder)
    similarity = document["normalised"]["model"]["id_similarity"]
    figures = {name: interval["value"] for name, interval in {"s": similarity, **document["model"]}.items()}
    with _plain_errors():
        shipped = put(adapter, folder, recipe_of(legs, processes, document), figures)
    emit({"adapter": str(shipped), "figures": figures})


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
            f"{folder}: {len(problems)} files are not as in the manifest ({named}); "
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

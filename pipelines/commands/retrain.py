"""`dynamicid retrain`: the tasks of a scheduled training run, from its form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, SkipCode, command_group, option
from pipelines.commands.output import emit, say
from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from pipelines.registry.training_run import TrainingRun

app = command_group("Run the tasks of a scheduled training; the JSON of the run states what to train.")

FormOption = Annotated[
    str,
    option(
        "JSON of the run: form, trigger, versions, plan, answer (pipelines/registry/training_run.py).",
        "--form",
        metavar="JSON",
        envvar="DYNAMICID_FORM",
        show_envvar=True,
    ),
]


@app.command()
def plan(
    *,
    form: FormOption = "{}",
    trigger: Annotated[
        Literal["hand", "schedule", "data"] | None, option("What started the run; default: the form's trigger.")
    ] = None,
    version: Annotated[
        list[str] | None, option("Dataset version; repeatable, the newest is used. `latest`: the newest of all.")
    ] = None,
    start_from: Annotated[
        Literal["parameters", "scratch", "champion"] | None,
        option("What training starts from; default: the form's, else retrain.start_from."),
    ] = None,
    skip_code: SkipCode = 0,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Plan the run and print the plan as JSON: train, reason, dataset_version, seed, start_from."""
    from pipelines.commands.configure import find_profile
    from pipelines.core.params import load_params
    from pipelines.registry.retraining import make_plan

    run = _read(form)
    # A profile that the form names trains another base, perhaps, which cannot continue from this checkout's champion.
    source = params if run.form.profile is None else find_profile(run.form.profile)
    made = make_plan(
        Path.cwd(),
        load_params(source),
        trigger or run.trigger,
        version or run.dataset_versions(),
        start_from or run.form.start_from,
    )
    say(made.reason)
    emit(made)
    if not made.train:
        raise typer.Exit(skip_code)


@app.command()
def configure(form: FormOption, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Write the parameters of form and plan, and provide the dataset: a version, or else procedural people."""
    from pipelines.commands.configure import configure as write
    from pipelines.commands.dataset import checkout
    from pipelines.commands.ingest import ingest
    from pipelines.commands.synthesize import synthesize
    from pipelines.core.chain import FACES

    run = _read(form)
    if run.plan is None:
        raise UserError("the form of the run: missing key plan; `dynamicid retrain plan` makes one")
    write(profile=run.form.profile, overrides=run.overrides(), file=params)
    if run.plan.dataset_version is not None:
        checkout(run.plan.dataset_version)
        return
    photos = Path(".dynamicid/demo")
    synthesize(identities=run.form.identities, out=photos)
    ingest(photos, out=Path(FACES), params=params)


@app.command()
def drift(form: FormOption, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Run `dynamicid drift`, with `--accept` if the form accepts drift."""
    from pipelines.commands.drift import drift as compare

    compare(params, accept=_read(form).form.accept_drift)


@app.command()
def decide(form: FormOption) -> None:
    """Promote or refuse the registered version, as the person who was asked answered."""
    from pipelines.commands.promote import promote

    answer = _read(form).answer
    if answer is None:
        raise UserError("the form of the run: missing key answer")
    promote(answer.model, by=answer.by, refuse=answer.choice == "refuse", override_gates=answer.choice == "override")


def _read(form: str) -> TrainingRun:
    from pipelines.registry.training_run import read_run

    return read_run(form)

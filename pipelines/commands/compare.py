"""`dynamicid compare`: methods, versions or parameters beside each other, under one budget and one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.chain import PROCESSED

OUT = Path("reports/compare")


def compare(
    *,
    methods: Annotated[
        str | None,
        option("Methods to train, with commas; text_only: the base model alone. The first row is the reference."),
    ] = None,
    versions: Annotated[
        str | None, option("Registered versions (NAME/NUMBER, models:/NAME@ALIAS) or adapter folders, with commas.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        option("Values of one parameter, a row each; repeatable: all combinations.", metavar="SECTION.KEY=A,B"),
    ] = None,
    seeds: Annotated[int, option("Seeds of both trainings, 0 to N-1, for every method.", min=1)] = 3,
    overrides: Annotated[
        list[str] | None,
        option(
            "Change one parameter of all rows, or of one method; repeatable.",
            "--set",
            metavar="[METHOD:]SECTION.KEY=VALUE",
        ),
    ] = None,
    processed: Annotated[Path, option("Preprocessed photos.")] = Path(PROCESSED),
    out: Annotated[Path, option("Folder for the page, the LaTeX table and comparison.json.", metavar="DIR")] = OUT,
    record: Annotated[bool, option("Record every cell in MLflow, under one run.")] = True,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Train methods with one budget (or take versions), evaluate them alike, and write one table with intervals."""
    from pipelines.operations.compare.page import DOCUMENT, PAGE, TABLE
    from pipelines.operations.compare.plan import Asked, plan_rows
    from pipelines.operations.compare.run import compare as do
    from pipelines.operations.compare.run import summary_of
    from pipelines.operations.doctor.examine import refuse_what_cannot_end
    from pipelines.versions.older import warn_if_older
    from pipelines.versions.places import SHEETS, note_copy

    root = Path.cwd()
    warn_if_older(root, processed)
    asked = Asked(_listed(methods), _listed(versions), tuple(overrides or ()), tuple(vary or ()), seeds)
    rows = plan_rows(asked, params, root)
    if trained := [row for row in rows if row.method is not None]:
        refuse_what_cannot_end(trained[0].params, root, ("train_anchoring", "train_imr", "evaluate"))
    if not out.resolve().is_relative_to((root / "reports").resolve()):
        note_copy(root, out, SHEETS)  # its pages show people
    comparison = do(rows, processed, root, out, record=record)
    for line in summary_of(comparison):
        say(line)
    say(f"page: {out / PAGE}; LaTeX: {out / TABLE}; figures: {out / DOCUMENT}")
    emit_if_asked(comparison.document())


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in (text or "").split(","))))

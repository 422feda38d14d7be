"""`dynamicid validate` and `dynamicid validate-processed`: check a dataset before and after preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.chain import EXPECTATIONS, FACES, PROCESSED, VERDICT, VERDICT_PROCESSED
from pipelines.core.errors import StageFailed

if TYPE_CHECKING:
    from pipelines.data.validation.verdict import Verdict

Out = Annotated[Path, option("Folder for verdict.json.", metavar="DIR")]


def validate(
    faces: Annotated[Path, argument("Dataset folder.", metavar="DIR")] = Path(FACES),
    out: Out = Path(VERDICT).parent,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Check the metadata of a dataset with Great Expectations; write verdict.json and Data Docs."""
    from pipelines.data.validation.data_docs import docs_of
    from pipelines.stages.validate import Inputs, Outputs, run

    read, docs = read_params(params, overrides), docs_of(out)
    _report(lambda: run(read, Inputs(faces, Path(EXPECTATIONS)), Outputs(out, docs)), docs)


def validate_processed(
    processed: Annotated[Path, argument("Folder of the preprocessed rows.", metavar="DIR")] = Path(PROCESSED),
    out: Out = Path(VERDICT_PROCESSED).parent,
    faces: Annotated[Path | None, option("Dataset of the rows; it must have as many rows.", metavar="DIR")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Check preprocessed rows with Great Expectations; write verdict.json and Data Docs."""
    from pipelines.data.validation.data_docs import docs_of
    from pipelines.stages.validate_processed import Inputs, Outputs, run
    from pipelines.versions.older import warn_if_older

    read, docs = read_params(params, overrides), docs_of(out)
    warn_if_older(Path.cwd(), processed)
    inputs = Inputs(processed, faces, Path(EXPECTATIONS))
    _report(lambda: run(read, inputs, Outputs(out, docs)), docs)


def _report(run: Callable[[], Verdict], docs: Path) -> None:
    try:
        verdict = run()
    except StageFailed:
        say(f"Data Docs: {docs / 'index.html'}")
        raise
    say(f"Data Docs: {docs / 'index.html'}")
    say(verdict.summary())
    emit_if_asked(verdict)

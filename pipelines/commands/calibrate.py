"""`dynamicid calibrate`: measure the thresholds of a recogniser on photos of known people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit_if_asked, say_done
from pipelines.core.errors import UserError
from pipelines.core.words import counted


def calibrate(
    data: Annotated[Path, argument("data/processed, or a folder of photos with a folder per person.", metavar="DIR")],
    *,
    identity_depth: Annotated[int, option("Number of leading folders that name a person.", min=1)] = 1,
    out: Annotated[Path, option("Folder for the page and the numbers.", metavar="DIR")] = Path("reports/calibrate"),
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Measure from which cosine on two faces are one person to the recogniser; write it to calibrations.yaml."""
    from pipelines.data.curation.calibrate import PAGE, Inputs, Outputs, run
    from pipelines.data.faces.calibration import FILE
    from pipelines.versions.forgotten import gate
    from pipelines.versions.state import CURATE, shared_state

    if not data.is_dir():
        raise UserError(f"{data}: no such folder; expected data/processed, or a folder of photos with one per person")
    forgotten = gate(data)
    state = shared_state(Path()) / CURATE
    inputs = Inputs(data, identity_depth, forgotten.reason if forgotten else None)
    report = run(read_params(params, overrides), inputs, Outputs(out, Path.cwd(), state))
    found, measured = report.thresholds, report.thresholds["measured"]
    rates = (f"{measured[name]['value']:.2g}" for name in ("false_accepts", "true_accepts"))
    based_on = f"{counted(measured['people'], 'person', 'people')}, {counted(measured['photos'], 'photo')}"
    say_done(
        f"{found['network']} ({report.recogniser[:12]}): one person from {found['similarity']:g} on; of pairs of two "
        f"people {next(rates)} are accepted, of one person {next(rates)} ({based_on}); {FILE}, {out / PAGE}"
    )
    emit_if_asked(report)

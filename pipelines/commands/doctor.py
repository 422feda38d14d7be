"""`dynamicid doctor`: whether a profile can reach its end on this machine, what to do, and how long it will take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit_if_asked, warn
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params, load_params, profile_file
from pipelines.core.paths import project_root
from pipelines.core.screen import say, show

if TYPE_CHECKING:
    from pipelines.operations.doctor.estimate import Estimate
    from pipelines.operations.doctor.finding import CheckResult

_MARKS = {"good": ("good", "green"), "warning": ("note", "yellow"), "stop": ("stop", "red")}


def doctor(
    *,
    profile: Annotated[str | None, option("Examine this profile instead of the parameter file.")] = None,
    data: Annotated[Path | None, option("Dataset folder; default: data/faces.", metavar="DIR")] = None,
    fast: Annotated[bool, option("Leave out what takes more than seconds: hashes, pixels, measured runs.")] = False,
    file: ParamsFile = DEFAULT_PARAMS,
    override: Overrides = None,
) -> None:
    """Examine machine, networks and photos before hours are spent; exit 1 where the profile cannot reach its end."""
    from pipelines.operations.doctor.data import dataset, read_photos
    from pipelines.operations.doctor.examine import examine
    from pipelines.operations.doctor.finding import stops

    root = Path.cwd()
    params = _params(profile, file, override)
    findings = examine(params, root, data, fast=fast)
    wrong = stops(findings)
    _show(findings)
    expected: list[Estimate] = []
    if not fast and not any(one.subject in ("weights", "python") for one in wrong):
        from pipelines.operations.doctor.estimate import estimate

        say("measuring small runs of each stage; this takes minutes, --fast leaves it out")
        faces = dataset(root, data)
        try:
            expected = estimate(params, faces, read_photos(faces, params, fast=True))
        except (UserError, StageFailed) as error:
            warn(f"no estimate of hours: {error}")
    if expected:
        _show_hours(expected)
    emit_if_asked({"findings": [asdict(one) for one in findings], "expected": [asdict(one) for one in expected]})
    if wrong:
        names = ", ".join(dict.fromkeys(one.subject for one in wrong))
        raise StageFailed(f"the profile {params.profile} cannot reach its end: {names}; the page above says what to do")


def _params(profile: str | None, file: Path, overrides: list[str] | None) -> Params:
    if profile is None:
        return read_params(file, overrides)
    return load_params(profile_file(project_root() / "profiles", profile, f"--profile {profile}"), overrides or ())


def _show(findings: list[CheckResult]) -> None:
    """Show a row for each finding on stderr."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "subject", "what was found", "what to do")
    for one in findings:
        word, colour = _MARKS[one.level]
        table.add_row(Text(word, colour), one.subject, Text(one.text), Text(one.mend))
    show(table)


def _show_hours(expected: list[Estimate]) -> None:
    """Show a row for each stage on stderr."""
    from rich.table import Table

    hours = Table("stage", "hours", "GB", "from")
    for stage in expected:
        hours.add_row(stage.stage, f"{stage.hours:,.2f}", f"{stage.gigabytes:,.2f}", stage.basis)
    hours.add_row("all", f"{sum(one.hours for one in expected):,.2f}", "", "")
    show(hours)

"""`dynamicid drift`: compare the current dataset with the one that the champion was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, say_done, warn
from pipelines.core.errors import StageFailed

_NOTHING = {
    "no_champion": "there is no champion yet to compare with",
    "not_trained_here": "the champion was not trained here, so there is no data to compare with",
}


def drift(
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    out: Annotated[Path, option("Folder for drift.json and index.html.", metavar="DIR")] = Path("reports/drift"),
    against: Annotated[str | None, option("Registered version; default: the champion.", metavar="URI")] = None,
    accept: Annotated[bool, option("Report drift beyond a limit, but exit 0.", "--accept")] = False,
) -> None:
    """Compare data/processed with the data the champion was trained on; exit 1 if a feature drifts beyond its limit."""
    params = read_params(file, overrides)
    from pipelines.registry.drift import against_champion

    verdict = against_champion.run(params, Path.cwd(), out, against)
    emit(verdict.plain())
    if verdict.state in _NOTHING:
        say(f"drift: {_NOTHING[verdict.state]}")
        return
    between = f"{verdict.reference_version or 'its data'} of champion v{verdict.champion}"
    page = out / against_champion.PAGE
    for line in verdict.lines("warn"):
        warn(f"drift warns: {line}, against {between}")
    if verdict.state == "stop":
        reason = f"drift against {between}: {'; '.join(verdict.lines('stop'))}; see {page}"
        if not accept:
            raise StageFailed(f"{reason}; `--accept` goes on regardless")
        warn(reason)
    elif verdict.state == "ok":
        say_done(f"drift: none against {between}; see {page}")

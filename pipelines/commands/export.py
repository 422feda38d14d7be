"""`dynamicid export`: write the dataset in a layout that other projects read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, NewFolder, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES, PROCESSED
from pipelines.core.people import normal_name
from pipelines.core.words import counted


def export(
    *,
    layout: Annotated[str, option("sidecars, variface, consistentid, webdataset or huggingface.", metavar="LAYOUT")],
    out: NewFolder,
    faces: Annotated[Path, option("Dataset folder.", metavar="DIR")] = Path(FACES),
    processed: Annotated[
        Path, option("Preprocessed photos, for the layouts sidecars and consistentid.", metavar="DIR")
    ] = Path(PROCESSED),
    permitted: Annotated[
        bool, option("Only photos that the parameters `rights` permit to train on.", "--permitted")
    ] = False,
    identity: Annotated[list[str] | None, option("Only this person; repeatable.", metavar="NAME")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Write the dataset in another layout into a new folder, with consent, licence and source of every photo."""
    from pipelines.data.export.rows import Selection
    from pipelines.data.export.run import Inputs
    from pipelines.data.export.run import export as write
    from pipelines.versions.forgotten import gate
    from pipelines.versions.places import note_copy

    given = read_params(params, overrides)
    people = frozenset(normal_name(name) for name in identity) if identity else None
    wanted = Selection(given.rights if permitted else None, people, gate(faces, processed, out).reason)
    note_copy(Path.cwd(), out, f"export, {layout}")
    result = write(layout, Inputs(faces, processed), out, given.export, wanted)
    left_out = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
    say(f"{out}: {counted(result.photos, 'photo')} as {layout}" + (f"; left out: {left_out}" if left_out else ""))
    emit(result)

"""`dynamicid synthesize`: draw a dataset of procedural people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.errors import UserError


def synthesize(
    *,
    identities: Annotated[int, option("How many people.")] = 0,
    out: Annotated[Path | None, option("Folder to draw them into; it only ever grows.")] = None,
    photos: Annotated[int, option("Photos of each, up to 35: every expression in every pose.")] = 35,
    seed: Annotated[int, option("Other seeds are other people.")] = 0,
    size: Annotated[int, option("Side of the photos in pixels.")] = 128,
    workers: Annotated[int, option("Processes that draw.")] = 2,
    truth: Annotated[Path | None, option("Also write the ground truth to this Parquet file.")] = None,
    sheet: Annotated[Path | None, option("Write a contact sheet to this picture file.")] = None,
) -> None:
    """Draw people: <out>/person_00042/<n>.jpg with <n>.txt (prompt, face prompt)."""
    if sheet is not None:
        from pipelines.data.synthetic.sheet import write_sheet

        write_sheet(sheet, seed, size)
        say(f"contact sheet: {sheet}")
        if out is None:
            return
    if out is None or identities < 1:
        raise UserError("synthesize needs --identities (at least 1) and --out DIR, or --sheet FILE")
    from pipelines.data.synthetic.dataset import write_dataset

    new = write_dataset(identities, out, photos=photos, seed=seed, size=size, workers=workers, truth=truth)
    say(f"{identities} people in {out}, {new} of them new")
    emit_if_asked({"people": identities, "new": new, "folder": str(out)})

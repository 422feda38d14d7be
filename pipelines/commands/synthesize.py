"""`dynamicid synthesize`: draw a dataset of procedural people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.errors import UserError
from pipelines.core.words import counted


def synthesize(
    *,
    identities: Annotated[int, option("Number of people.")] = 0,
    out: Annotated[Path | None, option("Folder to write to; photos in it stay.", metavar="DIR")] = None,
    photos: Annotated[int, option("Photos per person, at most 35: every expression in every pose.")] = 35,
    seed: Annotated[int, option("Random seed; another seed draws other people.")] = 0,
    size: Annotated[int, option("Width and height of the photos in pixels.")] = 128,
    workers: Annotated[int, option("Number of processes.")] = 2,
    namespace: Annotated[str, option("Whose people: demo, whom no shipped network has seen, or dataset.")] = "demo",
    truth: Annotated[Path | None, option("Also write the ground truth to this Parquet file.", metavar="FILE")] = None,
    sheet: Annotated[Path | None, option("Write a contact sheet to this file; needs no --out.", metavar="FILE")] = None,
) -> None:
    """Draw procedural people: DIR/demo-00042/N.jpg, each with its prompt and face prompt in N.txt."""
    if sheet is not None:
        from pipelines.data.synthetic.sheet import write_sheet

        write_sheet(sheet, seed, size)
        say(f"contact sheet: {sheet}")
        if out is None:
            return
    if out is None or identities < 1:
        raise UserError("synthesize needs --identities (at least 1) and --out DIR, or --sheet FILE")
    from pipelines.data.synthetic.dataset import write_dataset

    new = write_dataset(
        identities, out, photos=photos, seed=seed, size=size, workers=workers, truth=truth, namespace=namespace
    )
    say(f"{counted(identities, 'person', 'people')} in {out}, {new} new")
    emit_if_asked({"people": identities, "new": new, "folder": str(out)})

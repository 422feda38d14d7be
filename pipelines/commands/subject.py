"""`dynamicid subject`: what is held of a person, as a page to hand over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.errors import StageFailed


def subject(
    identity: Annotated[list[str] | None, argument("People, by name.", metavar="NAME")] = None,
    image_id: Annotated[list[str] | None, option("Photo, by image_id; repeatable.", metavar="ID")] = None,
    out: Annotated[Path | None, option("Also write a page with their photos to hand over.", metavar="FILE")] = None,
) -> None:
    """Print what is held of people: photos, dataset versions, models, exports, places. Nothing is changed.

    Exit 1 if a place could not be searched.
    """
    from pipelines.operations.forgetting.holdings import holdings, write_holdings
    from pipelines.operations.forgetting.subject import subject_of
    from pipelines.versions.places import SUBJECT, note_copy

    held, pictures = holdings(Path.cwd(), subject_of(identity or (), image_id or ()))
    if out is not None:
        note_copy(Path.cwd(), out, SUBJECT)
        write_holdings(out, held, pictures)
        say(f"{out}: written; it holds their photos: delete it when it is handed over")
    emit_if_asked(held)
    models = [f"{one['name']} version {one['version']}" for one in held.traces.models]
    lines = [
        f"photos: {len(held.photos)}",
        f"dataset versions: {', '.join(held.versions) or 'none'}",
        f"models: {', '.join(models) or 'none'}",
        *(f"base: {folder} was trained on them" for folder in held.bases),
        *(f"logged picture: {one['path']} of MLflow run {one['run_id']}" for one in held.traces.artefacts),
        *(f"copy: {copy.folder} ({copy.what})" for copy in held.exports),
        *(f"place: {place}: {count}" for place, count in held.places.items()),
        *([held.forgotten] if held.forgotten else []),
    ]
    for line in lines:
        say(line)
    if held.beyond:
        raise StageFailed(f"not searched: {'; '.join(held.beyond)}")

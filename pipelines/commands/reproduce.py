"""`dynamicid reproduce`: a registered version with its code and data in a new folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit, say_done
from pipelines.core.errors import StageFailed


def reproduce(
    uri: Annotated[str, argument("models:/dynamicid/3 or models:/dynamicid@champion.", metavar="URI")],
    out: Annotated[Path, option("A folder that does not exist yet.")],
) -> None:
    """Bring back code, parameters, data and results of a version; exit 1 where `dvc status` there is not clean."""
    from pipelines.registry import reproduce as bring_back

    done = bring_back.reproduce(Path.cwd(), uri, out)
    emit(done)
    if done.changed:
        raise StageFailed(f"{done.folder}: dvc status is not clean: {json.dumps(done.changed)}")
    said = f"{done.model}: {done.dataset_version or 'its data'} and its code are in {done.folder}; dvc status is clean"
    say_done(said)

"""Are the results of the checkout older than its dataset? Every command that reads results asks it, and says so."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.chain import FACES, METRICS, PROCESSED
from pipelines.core.errors import StageFailed
from pipelines.core.screen import say

_STAGE_OF = {PROCESSED: "preprocess", METRICS: "evaluate"}


def older_than_data(root: Path, path: str | Path) -> str | None:
    """Return a line that says that `path`, processed photos or metrics, is not of the dataset `data/faces`.

    None where it was not, where `path` is not the result of a stage, or where `dvc.lock` does not say what it was made
    from. `path` is absolute or relative to `root`; any form of the same place will do.
    """
    # Every command imports this module.
    from pipelines.versions.dataset_version import tag_of
    from pipelines.versions.dvc import pointed_hash
    from pipelines.versions.lock import dataset_of, differing, hashes, read_lock

    name, pointer = _result(root, path), root / f"{FACES}.dvc"
    if name is None or not pointer.is_file():
        return None
    stage = _STAGE_OF[name]
    if (entry := read_lock(root).get(stage)) is None:
        return None
    present = pointed_hash(pointer.read_bytes())
    try:
        made = dataset_of(root, stage)
    except StageFailed as error:
        made, reason = None, str(error)
    else:
        if None in (made, present) or made == present:
            return None
        before, now = (tag_of(root, md5 or "") or str(md5)[:12] for md5 in (made, present))
        reason = f"made from {before}, but {FACES} is {now}; `dynamicid repro` makes the results from {now}"
    # A stage that was called by hand may have made a newer result than the lock file knows.
    own = {place: md5 for place, md5 in hashes(entry, "outs").items() if place == name}
    return None if differing(root, own) else f"{name}: {reason}"


def _result(root: Path, path: str | Path) -> str | None:
    """Return the result of a stage that lies at `path`, None where it is none, or is not there."""
    place = root / path
    there = [name for name in _STAGE_OF if (root / name).exists()]
    return next((name for name in there if place.exists() and place.samefile(root / name)), None)


def warn_if_older(root: Path, *paths: str | Path) -> list[str]:
    """Warn of each of `paths` that is older than the dataset of the checkout `root`; return the lines."""
    lines = [line for path in paths if (line := older_than_data(root, path)) is not None]
    for line in lines:
        say(f"warning: {line}", "yellow")
    return lines

"""A copy in the DVC remote after every dataset version and every registered model."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import StageFailed
from pipelines.versions.objects import default_remote
from pipelines.versions.repro import dvc


def push_data(root: Path, *targets: str) -> str | None:
    """Copy what `targets` (`.dvc` files; default: everything the checkout names) to the default remote.

    Returns the remote's name; None, and nothing is done, where the repository has no default remote. Raises StageFailed
    where the remote does not take it: what was to be copied is whole in the cache, and the same command tries again.
    """
    remote = default_remote(root)
    if remote is None:
        return None
    done = dvc(root, "push", "--quiet", *targets, capture=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise StageFailed(
            f"{' '.join(targets) or root}: kept here, but not copied to the DVC remote {remote!r}: "
            f"{lines[0].removeprefix('ERROR: ') if lines else 'no reason given'}; run again when it can be reached"
        )
    return remote

"""All findings about a profile, the machine and the photos."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import StageFailed
from pipelines.core.params import Params
from pipelines.operations.doctor.data import NO_PHOTOS, dataset, photos, read_photos
from pipelines.operations.doctor.finding import CheckResult, in_one_line, stops
from pipelines.operations.doctor.machine import machine
from pipelines.operations.doctor.networks import networks


def examine(params: Params, root: Path, data: Path | None = None, *, fast: bool = False) -> list[CheckResult]:
    """Return all findings; `fast` leaves out what takes long: hashes of large files, pixels of photos."""
    faces = dataset(root, data)
    found = read_photos(faces, params, fast=fast)
    return [
        *machine(params, root, found.bytes),
        *networks(params, root, found.domains, fast=fast),
        *photos(params, found),
    ]


def refuse_what_cannot_end(params: Params, root: Path, stages: tuple[str, ...]) -> None:
    """Raise StageFailed, with what to do, where one of the stages cannot reach its end; takes seconds."""
    # Photos that are not there may come from the cache or a remote.
    findings = [one for one in examine(params, root, fast=True) if one.text != NO_PHOTOS]
    if found := stops(findings, stages):
        raise StageFailed(f"{in_one_line(found)} (`dynamicid doctor` says more)")

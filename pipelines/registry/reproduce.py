"""Restore a registered version: its code, parameters, data and results in a new folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import ADAPTER
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder, folder_sha256
from pipelines.registry.origins import origins_of
from pipelines.registry.snapshot import fetch_snapshot
from pipelines.versions.dvc import bring_data, dvc, dvc_problem
from pipelines.versions.forgotten import describe_entries, gate
from pipelines.versions.git import git
from pipelines.versions.places import RESTORED, note_copy
from pipelines.versions.workspace import clone_of


@dataclass(frozen=True)
class Reproduction:
    """A restored version; `changed` is the output of `dvc status` in its folder, empty for an exact copy."""

    model: str
    folder: str
    snapshot: str
    dataset_version: str | None
    changed: dict[str, Any]


def reproduce(root: Path, uri: str, target: Path) -> Reproduction:
    """Restore `uri` into the new folder `target`: a clone at its snapshot with its data checked out.

    Raises UserError where the version cannot be restored, StageFailed where the restored adapter is not the registered
    one; `target` is removed then.
    """
    origins = origins_of(root, uri)
    if target.exists():
        raise UserError(f"{target}: it exists; give a folder that does not")
    if origins.snapshot is None:
        raise UserError(
            f"{origins.model}: not trained here, registered outside of a git repository, or from stages called by "
            f"hand, so there is no code to restore; its data: {origins.outputs or 'unknown'}"
        )
    fetch_snapshot(root, origins.snapshot)
    note_copy(root, target, RESTORED)
    with atomic_folder(target) as part:
        clone_of(root.resolve(), part)
        git(part, "checkout", "--quiet", "--detach", f"refs/tags/{origins.snapshot}")
        _check_out_data(part, target, root, origins.dataset_md5)
        if folder_sha256(part / ADAPTER) != origins.adapter_hash:
            raise StageFailed(f"{origins.model}: the restored adapter is not the registered one; is it damaged?")
        changed = _status(part)
    return Reproduction(origins.model, str(target), origins.snapshot, origins.dataset_version, changed)


def _check_out_data(part: Path, target: Path, root: Path, dataset_md5: str | None) -> None:
    if not (problem := bring_data(part)):
        return
    if dataset_md5 and (forgotten := describe_entries(gate(root).of_dataset(dataset_md5))):
        raise UserError(f"{target}: this version cannot be restored unchanged, its people were {forgotten}")
    raise UserError(
        f"{target}: its data is neither in the DVC cache nor in a remote ({problem}); "
        "`dvc remote add -d` names a remote that has it"
    )


def _status(target: Path) -> dict[str, Any]:
    done = dvc(target, "status", "--json", capture=True)
    if done.returncode:
        raise StageFailed(f"dvc status in {target}: {dvc_problem(done)}")
    return dict(json.loads(done.stdout or "{}"))

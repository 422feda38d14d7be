"""Drift of the present dataset against a registered version's: the verdict, the page, and an MLflow run."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.chain import FACES, PROCESSED
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.params import Params
from pipelines.data.same_photos import check_same_photos
from pipelines.registry.drift.features import Sample, read_sample
from pipelines.registry.drift.kept import keep_sample, kept_sample
from pipelines.registry.drift.page import write_page
from pipelines.registry.drift.verdict import ADDED, Verdict, compare, state_of
from pipelines.registry.registry import TRAINED_HERE, champion_of, find_version, made_from, open_registry
from pipelines.registry.results import result_of
from pipelines.registry.runs import leave_address, log_values
from pipelines.registry.tracking import Tracking
from pipelines.versions.dataset_version import current_version
from pipelines.versions.dvc import bring_objects
from pipelines.versions.forgotten import refuse_forgotten

DRIFT = "drift.json"
PAGE = "index.html"


def run(params: Params, root: Path, out: Path, against: str | None = None) -> Verdict:
    """Compare `data/faces` and `data/processed` of `root` with the data of version `against` (default: the champion).

    Writes `drift.json` into `out`, and `index.html` unless there is no champion, or one that was not trained here.
    Raises UserError where the version's training data is unknown or missing, StageFailed where processed photos are not
    those of the dataset beside them.
    """
    begin, client = time.time(), open_registry(root)
    version = find_version(client, against) if against else champion_of(client, params.register_.model_name)
    finished = not against and version is not None and version.tags.get(TRAINED_HERE) == "false"
    if version is None or finished:
        number = None if version is None else str(version.version)
        verdict = Verdict("not_trained_here" if finished else "no_champion", number, None, current_version(root).tag)
        _write(out, verdict)
        return verdict
    objects = _training_data(version)
    size = params.drift.sample
    refuse_forgotten(root / FACES, root / PROCESSED)
    check_same_photos(root / FACES, root / PROCESSED)
    current = read_sample(root / FACES, root / PROCESSED, size)
    if (present := _present_data(root)) is not None:
        keep_sample(root, present, size, current)  # of the version that may be the next champion's
    reference = kept_sample(root, objects, size) or _brought_sample(root, objects, size)
    findings = compare(reference, current, params.drift)
    verdict = Verdict(
        state=state_of(findings),
        champion=str(version.version),
        reference_version=version.tags.get("dynamicid.dataset_version"),
        current_version=current_version(root).tag,
        photos={
            "reference": reference.photos,
            "current": current.photos,
            "reference_sample": len(reference),
            "current_sample": len(current),
            "added": int((~np.isin(current.image_ids, reference.image_ids)).sum()),
        },
        findings=findings,
    )
    _write(out, verdict, write_page(verdict, reference, current))
    _record(client, root, verdict, out, round(begin * 1000))
    return verdict


def _brought_sample(root: Path, objects: dict[str, str], size: int) -> Sample:
    """Return the sample of a version whose data is brought from DVC's cache or remote for it, and keep it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "reference"
        bring_objects(root, objects, place)
        check_same_photos(place / "faces", place / "processed")
        sample = read_sample(place / "faces", place / "processed", size)
    keep_sample(root, objects, size, sample)
    return sample


def _present_data(root: Path) -> dict[str, str] | None:
    """Return DVC's hashes of the present dataset and processed photos; None where `dvc.lock` has others, or none."""
    try:
        result = result_of(root, "preprocess")
    except (UserError, StageFailed):
        return None
    found = {"faces": result.dataset_md5, "processed": result.outputs.get(PROCESSED)}
    return {name: digest for name, digest in found.items() if digest is not None} if all(found.values()) else None


def _training_data(version: Any) -> dict[str, str]:
    """Return the hashes of DVC of the dataset and the processed photos that a version was trained on."""
    found = {
        "faces": version.tags.get("dynamicid.dataset_md5"),
        "processed": made_from(version.tags).outputs.get(PROCESSED),
    }
    if missing := [name for name, digest in found.items() if digest is None]:
        raise UserError(
            f"models:/{version.name}/{version.version}: its tags have no hash of data/{missing[0]}, so its training "
            "data is unknown; register a newer version, or name one with --against"
        )
    return {name: str(digest) for name, digest in found.items()}


def _write(out: Path, verdict: Verdict, page: str | None = None) -> None:
    write_atomically(out / DRIFT, json.dumps(verdict.plain(), indent=2) + "\n")
    if page is None:
        (out / PAGE).unlink(missing_ok=True)  # a page of an earlier comparison would contradict the verdict
    else:
        write_atomically(out / PAGE, page)


def _record(client: Tracking, root: Path, verdict: Verdict, out: Path, start: int) -> None:
    from mlflow.entities import Metric

    from pipelines.registry.lineage import AIRFLOW_RUN_VARIABLE, source_tags
    from pipelines.registry.parents import child_run

    tags = {
        "dynamicid.stage": "drift",
        "dynamicid.model_version": str(verdict.champion),
        "dynamicid.drift": verdict.state,
        "dynamicid.dataset_version": verdict.current_version or "",
        "dynamicid.airflow_run_id": os.environ.get(AIRFLOW_RUN_VARIABLE, ""),
    }
    names = {f"drift.{one.feature}{'.added' if one.part == ADDED else ''}": one for one in verdict.findings}
    values = {name: one.distance for name, one in names.items()}
    values |= {f"{name}.chance": one.chance for name, one in names.items()}
    now = time.time_ns() // 1_000_000
    tags |= source_tags(root, "drift")
    known = {key: value for key, value in tags.items() if value}
    with child_run(client, root, "drift", known, start=start) as run_id:
        log_values(client, run_id, {}, [Metric(name, value, now, 0) for name, value in values.items()])
        client.log_artifacts(run_id, str(out))
    leave_address(client, run_id)

"""Remove MLflow's runs that nobody needs: those that were deleted, and old ones from which no version was registered.

MLflow keeps a deleted run with its files, so that it can be restored, until `mlflow gc` removes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.sections.operations import Keeping
from pipelines.registry.faults import TrackingFault
from pipelines.registry.registry import made_from
from pipelines.registry.runs import PARENT
from pipelines.registry.settings import tracking_uri
from pipelines.registry.tracking import Tracking, open_tracking

_DAY_MS = 86_400_000
# Runs of one call of `mlflow gc`, which gets them as one argument.
_TOGETHER = 1000


@dataclass(frozen=True)
class OldRuns:
    """Ids of runs of the project's experiment: `old` ones, to be deleted, and `deleted` ones, to be removed for good.

    `address`: MLflow's database for SQLAlchemy, with its password. `days`: since the deletion of all `deleted` ones.
    """

    client: Tracking
    address: str
    days: float
    old: list[str]
    deleted: list[str]

    def remove(self) -> int:
        """Delete the old runs, and remove the deleted ones for good; return the bytes that their files had.

        A SQLite database becomes smaller, unless somebody is using it. Raises StageFailed where `mlflow gc` fails.
        """
        for run in self.old:
            self.client.delete_run(run)
        size = sum(_bytes(self.client, run, None) for run in self.deleted)
        for start in range(0, len(self.deleted), _TOGETHER):
            _collect(self, self.deleted[start : start + _TOGETHER])
        return size + (_vacuum(self.address) if self.deleted else 0)


def find_old_runs(root: Path, address: str, keeping: Keeping, now: float | None = None) -> OldRuns:
    """Return the runs that `keeping` does not keep; `now` is in seconds since the epoch.

    Runs of which a registered version was made stay, deleted or not, and so do all of their chains. Raises UserError
    where the experiment is deleted, as `mlflow gc` would remove it with all its runs.
    """
    from mlflow.entities import ViewType

    client = open_tracking(root)
    experiment, moment = client.experiment_id(), int((time.time() if now is None else now) * 1000)
    runs = _all(client.search_runs, experiment_ids=[experiment], run_view_type=ViewType.ALL)
    needed = _needed(client, runs)
    deleted = _deleted_before(address, experiment, moment - keeping.deleted_runs_days * _DAY_MS) - needed
    old: set[str] = set()
    if keeping.runs_days is not None:
        before = moment - keeping.runs_days * _DAY_MS
        ended = (run.info for run in runs if run.info.lifecycle_stage == "active" and run.info.end_time)
        old = {info.run_id for info in ended if info.status != "RUNNING" and info.end_time < before} - needed
    return OldRuns(client, address, keeping.deleted_runs_days, sorted(old), sorted(deleted))


def _all(search: Callable[..., Any], **options: Any) -> list[Any]:
    """Return what all pages of a search of MLflow's client hold."""
    found: list[Any] = []
    token = None
    while True:
        page = search(page_token=token, max_results=1000, **options)
        found += page
        if not (token := page.token):
            return found


def _needed(client: Tracking, runs: Iterable[Any]) -> set[str]:
    """Return the ids of the runs of which registered versions were made, and of all runs of their chains."""
    versions = _all(client.search_model_versions)
    by_id = {run.info.run_id: run for run in runs}
    tags = [version.tags for version in versions]
    tags += [by_id[version.run_id].data.tags for version in versions if version.run_id in by_id]
    made = {key for one in tags for key in made_from(one).stages.values()}
    needed = {version.run_id for version in versions} | {value for one in tags for value in one.values()}
    needed |= {name for name, run in by_id.items() if run.data.tags.get("dynamicid.lock_hash") in made}
    chains = {by_id[name].data.tags.get(PARENT, name) for name in needed & set(by_id)}
    needed |= chains | {name for name, run in by_id.items() if run.data.tags.get(PARENT) in chains}
    return needed & set(by_id)


def _deleted_before(address: str, experiment: str, moment: float) -> set[str]:
    """Return the ids of the runs that were deleted before `moment` (ms since 1970); no interface of MLflow has it."""
    from sqlalchemy import create_engine, text

    asked = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' AND experiment_id = :id AND deleted_time < :ms"
    engine = create_engine(address)
    try:
        with engine.connect() as connection:
            return {row[0] for row in connection.execute(text(asked), {"id": int(experiment), "ms": int(moment)})}
    finally:
        engine.dispose()


def _bytes(client: Tracking, run: str, folder: str | None) -> int:
    """Return the bytes of a run's files, 0 where nobody can list them."""
    with suppress(TrackingFault, StageFailed):
        items = client.list_artifacts(run, folder)
        return sum(_bytes(client, run, item.path) if item.is_dir else item.file_size or 0 for item in items)
    return 0


def _collect(old: OldRuns, runs: Sequence[str]) -> None:
    """Remove deleted runs and their files by `mlflow gc`; no password is in its arguments.

    It also removes experiments and models that were deleted as long ago.
    """
    from sqlalchemy.engine import make_url

    url = make_url(old.address)
    places = {
        "--backend-store-uri": url.set(password=None).render_as_string(),
        "--tracking-uri": tracking_uri(old.client.home),
        "--older-than": f"{old.days * 24 * 3600:.0f}s",
        "--run-ids": ",".join(runs),
    }
    command = [sys.executable, "-m", "mlflow", "gc", *(word for pair in places.items() for word in pair)]
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run(command, env={**os.environ, **secret}, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise StageFailed(f"mlflow gc: {reason}; the runs stay deleted, and the next call removes them")


def _vacuum(address: str) -> int:
    """Give space that a SQLite database no longer needs back to the disk; return the bytes. 0 while others use it."""
    import sqlite3

    from sqlalchemy.engine import make_url

    url = make_url(address)
    if url.get_backend_name() != "sqlite" or not url.database:
        return 0
    file, before = Path(url.database), Path(url.database).stat().st_size
    with suppress(sqlite3.OperationalError):
        connection = sqlite3.connect(file)
        connection.execute("VACUUM")
        connection.close()
    return max(0, before - file.stat().st_size)

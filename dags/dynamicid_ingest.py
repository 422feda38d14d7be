"""dynamicid_ingest: make photos in the inbox a version of the dataset, and emit it as an event of the Asset `faces`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task
from assets import FACES
from inbox_sensor import InboxSensor
from stage_task import COMMON, HOME, INBOX, PYTHON, SKIP, command_task
from task_docs import DATASET, doc_of

DOC = """
### From the inbox to a dataset version

Put a folder of photos into the inbox (`DYNAMICID_INBOX`, default `.dynamicid/inbox`; a folder or an object-store
prefix). A batch is taken when it holds a file `_READY`, or when nothing in it has changed for `inbox.quiet_seconds`.

It is added to the newest dataset version, which is **validated before it is published**: a refused batch never becomes
a version. Finished batches move to `_done`; unreadable photos and refused batches to `_bad`, listed with reasons in
`_bad/<run>.json`. A task that failed for another reason can be cleared: its batch is still in `_taken/<run>`. The
workspace of a run that ended well is removed.

The event of the Asset `faces` carries `dataset_version`; `dynamicid_train` is triggered by it.
"""

with DAG(
    "dynamicid_ingest",
    description="Turn new photos into a dataset version",
    doc_md=DOC,
    schedule="@continuous",
    # Without a fixed start date the second run would get the date and name of the first, and never start.
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    tags=["dynamicid", "data"],
    **COMMON,
) as dag:
    wait = InboxSensor(
        task_id="wait_for_photos",
        doc_md=doc_of("wait_for_photos"),
        python=PYTHON,
        project=HOME,
        inbox=INBOX,
        poke_interval=20,
        patience=timedelta(hours=12),
        execution_timeout=None,
    )
    workspace = command_task("workspace", "workspace create --temporary", at_home=True)
    take = command_task("take", f"inbox take --skip-code {SKIP}")
    ingest = command_task("ingest", "inbox add --latest", keep=[DATASET])
    validate = command_task("validate", "inbox validate", bring=[DATASET], retries=0)
    publishing = {"bring": [DATASET], "output_processor": json.loads}
    publish = command_task("publish", f"inbox publish --skip-code {SKIP}", **publishing)

    @task(outlets=[FACES], doc_md=doc_of("announce"))
    def announce(published: dict, *, outlet_events=None) -> str:
        """Emit the Asset with the version that was made."""
        outlet_events[FACES].extra = {"dataset_version": published["tag"], "rows": published["rows"]}
        return published["tag"]

    # Runs also if validation succeeded but no photo was new; does not run if no batch was taken.
    done = command_task("done", "inbox done", trigger_rule="none_failed_min_one_success")
    wait >> workspace >> take >> ingest >> validate >> publish >> announce(publish.output) >> done
    validate >> done
    # Its version is in the checkout. Of a run that failed, `clean` removes the workspace after a while.
    rule = "none_failed_min_one_success"
    [workspace, done] >> command_task("remove_workspace", "workspace remove", at_home=True, trigger_rule=rule)

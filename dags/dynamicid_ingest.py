"""dynamicid_ingest: photos dropped into the inbox become a version of the dataset, and the Asset `faces` says which."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task
from assets import FACES
from inbox_sensor import InboxSensor
from stage_task import COMMON, HOME, INBOX, PYTHON, command_task

DOC = """
### From the inbox to a dataset version

Drop a folder of photos into the inbox (`DYNAMICID_INBOX`, default `.dynamicid/inbox`; a folder or an object-store
prefix). A batch is taken when it holds a file `_READY`, or when nothing in it has changed for `inbox.quiet_seconds`.

It is added to the newest dataset version, **validated first and published then**: a refused batch never becomes a
version. Finished batches move to `_done`; photos nobody can read and refused batches to `_bad`, listed with reasons in
`_bad/<run>.json`. A task that failed for another reason can be cleared: its batch is still in `_taken/<run>`.

The event of the Asset `faces` carries `dataset_version`; `dynamicid_train` is triggered by it.
"""
TAKE = """
taken=$("$PYTHON" -m pipelines.cli inbox take) || exit $?
echo "$taken"
case "$taken" in *'"batches": []'*) echo "somebody else took what was ready"; exit 99;; esac
"""
ADD = """
set -eu
rm -rf data/faces
if [ -n "$("$PYTHON" -m pipelines.cli dataset list)" ]; then "$PYTHON" -m pipelines.cli dataset checkout latest; fi
"$PYTHON" -m pipelines.cli inbox add
"""
# Only a verdict refuses a batch: a full disk is exit 1, too, and leaves none.
VALIDATE = """
verdict=reports/validate/verdict.json
rm -f "$verdict"
"$PYTHON" -m pipelines.cli validate data/faces 2>&1 | tee .dynamicid/validate.log
code=${PIPESTATUS[0]}
if [ "$code" = 1 ] && [ -s "$verdict" ]; then
  "$PYTHON" -m pipelines.cli inbox refuse --reason "$(tail -n 1 .dynamicid/validate.log)"
fi
exit "$code"
"""
# What was published is kept beside the data: a retry must still tell of a version that it made before.
PUBLISH = """
set -eu
if [ ! -s .dynamicid/published.json ]; then
  "$PYTHON" -m pipelines.cli dataset publish > .dynamicid/published.part
  mv .dynamicid/published.part .dynamicid/published.json
fi
cat .dynamicid/published.json
if grep -q '"new": false' .dynamicid/published.json; then echo "every photo was in the dataset already"; exit 99; fi
"""

with DAG(
    "dynamicid_ingest",
    description="Turn new photos into a dataset version",
    doc_md=DOC,
    schedule="@continuous",
    # Without a fixed start the second run would get the first one's date and name, and never begin.
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    tags=["dynamicid", "data"],
    **COMMON,
) as dag:
    wait = InboxSensor(
        task_id="wait_for_photos",
        python=PYTHON,
        project=HOME,
        inbox=INBOX,
        poke_interval=20,
        patience=timedelta(hours=12),
        execution_timeout=None,
    )
    workspace = command_task("workspace", 'exec "$PYTHON" -m pipelines.cli workspace create', cwd=HOME)
    take = command_task("take", TAKE)
    ingest = command_task("ingest", ADD)
    validate = command_task("validate", VALIDATE, retries=0)
    publish = command_task("publish", PUBLISH, output_processor=json.loads)

    @task(outlets=[FACES])
    def announce(published: dict, *, outlet_events=None) -> str:
        """Emit the Asset with the version that was made."""
        outlet_events[FACES].extra = {"dataset_version": published["tag"], "rows": published["rows"]}
        return published["tag"]

    # Also where nothing was new, but not where nothing was taken: validation succeeded in the one case only.
    done = command_task("done", '"$PYTHON" -m pipelines.cli inbox done', trigger_rule="none_failed_min_one_success")
    wait >> workspace >> take >> ingest >> validate >> publish >> announce(publish.output) >> done
    validate >> done

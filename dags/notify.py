"""Report failed tasks to the web address in DYNAMICID_WEBHOOK; without one nothing is sent."""

from __future__ import annotations

import logging
import os
from typing import Any

VARIABLE = "DYNAMICID_WEBHOOK"
_SECONDS = 10
log = logging.getLogger(__name__)


def report_failure(context: dict[str, Any]) -> None:
    """Post the failed task, its run and the reason as JSON; an unreachable webhook is only logged."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    import requests

    instance = context["ti"]
    message = {
        "text": f"{instance.dag_id}.{instance.task_id} failed in {context['run_id']}: {context.get('exception')}",
        "dag": instance.dag_id,
        "task": instance.task_id,
        "run": context["run_id"],
        "attempt": instance.try_number,
        "log": getattr(instance, "log_url", None),
    }
    try:
        requests.post(address, json=message, timeout=_SECONDS).raise_for_status()
    except requests.RequestException as error:
        log.warning("the failure could not be reported to the address in %s: %s", VARIABLE, error)

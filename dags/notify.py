"""Report tasks that failed for good: by Apprise, as the Airflow connection `dynamicid_notify` says, and to a webhook.

Without the connection and without DYNAMICID_WEBHOOK nothing is sent. Both hold secrets: no address is ever logged.
"""

from __future__ import annotations

import logging
import os
from typing import Any

CONNECTION, VARIABLE = "dynamicid_notify", "DYNAMICID_WEBHOOK"
_SECONDS = 10
log = logging.getLogger(__name__)


def report_failure(context: dict[str, Any]) -> None:
    """Send the failed task, its run, the reason and the address of the log; what cannot be sent is only logged."""
    instance = context["ti"]
    message = {
        "text": f"{instance.dag_id}.{instance.task_id} failed in {context['run_id']}: {context.get('exception')}",
        "dag": instance.dag_id,
        "task": instance.task_id,
        "run": context["run_id"],
        "attempt": instance.try_number,
        "log": getattr(instance, "log_url", None),
    }
    for name in ("apprise", "urllib3"):  # at the level DEBUG they log addresses
        logging.getLogger(name).setLevel(logging.INFO)
    for place, send in ((f"the connection {CONNECTION}", _by_apprise), (VARIABLE, _to_webhook)):
        try:
            send(message)
        except Exception as error:
            # Not the text of the error, which may hold the address.
            status = getattr(getattr(error, "response", None), "status_code", "")
            log.warning("the failure could not be reported by %s: %s %s", place, type(error).__name__, status)


def _by_apprise(message: dict[str, Any]) -> None:
    """Send a message to every service of the connection; raise RuntimeError where one did not take it."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return
    import apprise
    from airflow.providers.apprise.hooks.apprise import AppriseHook

    services = apprise.Apprise()
    AppriseHook(CONNECTION).set_config_from_conn(connection, services)
    title, body = f"{message['dag']}.{message['task']} failed", f"{message['text']}\n{message['log'] or ''}".strip()
    if not services.notify(body, title, notify_type=apprise.NotifyType.FAILURE):
        raise RuntimeError


def _to_webhook(message: dict[str, Any]) -> None:
    """Post a message as JSON, with keys that programs read."""
    address = os.environ.get(VARIABLE)
    if address:
        import requests

        requests.post(address, json=message, timeout=_SECONDS).raise_for_status()

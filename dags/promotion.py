"""The question to a person about a challenger, and the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

PROMOTE, OVERRIDE, REFUSE = "Promote", "Promote though gates failed", "Refuse"
_CHOICES = {PROMOTE: "promote", OVERRIDE: "override", REFUSE: "refuse"}
_DONE = "{% set done = ti.xcom_pull(task_ids='register') %}"
QUESTION = {
    "subject": _DONE + "Shall {{ done.model_name }} v{{ done.version }} become the champion?",
    "body": _DONE + "Champion now: {{ 'v' ~ done.champion if done.champion else 'none' }}.\n\n"
    "Failed gates: {{ done.failed_gates | join('; ') if done.failed_gates else 'none' }}.",
    "options": [PROMOTE, OVERRIDE, REFUSE],
    # Without an answer in time the champion stays.
    "defaults": REFUSE,
    "response_timeout": timedelta(days=7),
    "execution_timeout": None,
}
ANSWERED = (
    "{{ {'answer': answer_of(ti.xcom_pull(task_ids='register'), ti.xcom_pull(task_ids='ask_a_person'))} | tojson }}"
)


def answer_of(done: dict[str, Any], answer: dict[str, Any]) -> dict[str, str]:
    """Return the answer about the registered version and the name of who gave it."""
    return {
        "model": f"models:/{done['model_name']}/{done['version']}",
        "choice": _CHOICES[answer["chosen_options"][0]],
        "by": (answer.get("responded_by_user") or {}).get("name") or "nobody in time",
    }

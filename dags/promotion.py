"""Registering a challenger, and what a person is asked about it."""

from __future__ import annotations

from datetime import timedelta

REGISTER = """
set -eu
"$PYTHON" -m pipelines.cli register --accept-refusal > .dynamicid/registration.json
cat .dynamicid/registration.json
"""
PROMOTE, OVERRIDE, REFUSE = "Promote", "Promote though gates failed", "Refuse"
DECIDE = f"""
set -eu
set -- "$MODEL" --by "$BY"
case "$CHOICE" in
  "{PROMOTE}") ;;
  "{OVERRIDE}") set -- "$@" --override-gates;;
  *) set -- "$@" --refuse;;
esac
"$PYTHON" -m pipelines.cli promote "$@"
"""
_DONE = "{% set done = ti.xcom_pull(task_ids='register') %}"
_ANSWER = "{% set answer = ti.xcom_pull(task_ids='ask_a_person') %}"
QUESTION = {
    "subject": _DONE + "Shall {{ done.model_name }} v{{ done.version }} become the champion?",
    "body": _DONE + "Champion now: {{ 'v' ~ done.champion if done.champion else 'none' }}.\n\n"
    "Failed gates: {{ done.failed_gates | join('; ') if done.failed_gates else 'none' }}.",
    "options": [PROMOTE, OVERRIDE, REFUSE],
    # Nobody answered in time: the champion stays.
    "defaults": REFUSE,
    "response_timeout": timedelta(days=7),
    "execution_timeout": None,
}
DECIDE_VALUES = {
    "MODEL": _DONE + "models:/{{ done.model_name }}/{{ done.version }}",
    "CHOICE": _ANSWER + "{{ answer.chosen_options[0] }}",
    "BY": _ANSWER + "{{ (answer.responded_by_user or {}).get('name') or 'nobody in time' }}",
}

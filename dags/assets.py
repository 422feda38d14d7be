"""The Assets that DAGs hand to each other."""

from __future__ import annotations

from airflow.sdk import Asset

# An event's extra says {"dataset_version": "faces-v3"}: the version that was made, whatever HEAD is by then.
FACES = Asset("faces", uri="x-dynamicid://faces")

"""The Assets by which one DAG triggers another."""

from __future__ import annotations

from airflow.sdk import Asset

# The extra of an event names the version that was made, {"dataset_version": "faces-v3"}: HEAD may have moved on.
FACES = Asset("faces", uri="x-dynamicid://faces")

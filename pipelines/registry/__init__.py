"""Lineage, the MLflow ledger and the registry."""

"""Drift between a dataset version and the one that the champion was trained on."""

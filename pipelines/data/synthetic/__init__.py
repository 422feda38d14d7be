"""Procedural people: the embedded dataset, drawn instead of downloaded."""

"""Divide a dataset among Spark's workers and put their results together."""

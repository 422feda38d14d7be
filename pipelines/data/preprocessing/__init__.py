"""How preprocessing divides a dataset among Spark's workers and puts the results together."""

"""Write rows of the dataset as files in common layouts: the inverse of pipelines.data.ingest."""

"""From rows of the dataset to files as other projects keep them: the other direction of pipelines.data.ingest."""

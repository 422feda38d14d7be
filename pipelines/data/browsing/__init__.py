"""Pages that show rows of a dataset: those that `rights` permits and nobody asked to forget."""

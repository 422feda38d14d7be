"""Pages on which people look at rows of a dataset: those that `rights` permits and nobody asked to forget."""

"""Draw a dataset of procedural people, so that none has to be downloaded."""

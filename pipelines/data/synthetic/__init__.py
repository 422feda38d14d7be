"""Draw a dataset of procedural people, so that no dataset has to be downloaded."""

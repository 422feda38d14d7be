"""The formats of all files that outlive a release: their versions, and how older ones are read."""

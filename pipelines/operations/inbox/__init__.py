"""The inbox: the folder or object store for new photos, and what a run does with its batches (batches.py)."""

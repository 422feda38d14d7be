"""The inbox: the folder or object store for new photos, and the protocol of its runs (protocol.py)."""

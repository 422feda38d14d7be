"""The inbox: where new photos are dropped, and what becomes of them (protocol.py)."""

"""The adapter, its networks, and the frozen base models."""

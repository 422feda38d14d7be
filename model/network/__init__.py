"""The adapter and its parts, and the frozen base that it stands on."""

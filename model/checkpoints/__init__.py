"""Published checkpoint formats, read and written."""

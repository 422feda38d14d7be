"""The registered model behind HTTP: requests, their checks and the drawing (docs/guides/serve.md)."""

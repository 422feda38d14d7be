"""The registered model behind HTTP: what a request may hold, and how it is refused (docs/guides/serve.md)."""

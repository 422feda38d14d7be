"""People's rights: who may be trained on, what was forgotten, and forgetting itself (docs/guides/forget.md)."""

"""Old name of `pipelines.core.errors`, which versions registered before the move import."""

from pipelines.core.errors import UserError

__all__ = ["UserError"]

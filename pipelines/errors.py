"""Keep the old import path of `UserError`, which earlier registered versions use; now in `core.errors`."""

from pipelines.core.errors import UserError

__all__ = ["UserError"]

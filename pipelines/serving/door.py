"""Keep the old import path of `install`, which earlier registered versions use; now in `serving.request_guard`."""

from pipelines.serving.request_guard import install

__all__ = ["install"]

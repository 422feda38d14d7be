"""Old name of `pipelines.serving.request_guard`, which versions registered before the renaming import."""

from pipelines.serving.request_guard import install

__all__ = ["install"]

"""Keep the old import path of `Generator`, which earlier registered versions use; now in `serving.generation`."""

from pipelines.serving.generation import Generator

__all__ = ["Generator"]

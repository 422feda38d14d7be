"""Old name of `pipelines.serving.generation`, which versions registered before the move import."""

from pipelines.serving.generation import Generator

__all__ = ["Generator"]

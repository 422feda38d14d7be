"""Old name of `pipelines.core.params`, which versions registered before the move import."""

from pipelines.core.params import load_params

__all__ = ["load_params"]

"""Keep the old import path of `load_params`, which earlier registered versions use; now in `core.params`."""

from pipelines.core.params import load_params

__all__ = ["load_params"]

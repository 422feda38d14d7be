"""No word of libraries between our own lines: loading bars, remarks and warnings about old names are turned off."""

from __future__ import annotations

import os
import warnings

# Read by the libraries themselves when they are imported, here and in the processes that are started.
_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_LIBRARIES = ("diffusers", "huggingface_hub", "insightface", "onnxruntime", "skimage", "torch", "transformers")


def silence_libraries() -> None:
    """Let models be loaded and used without remarks; errors, and whatever the user has set, stay."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(_LIBRARIES)})(\.|$)")

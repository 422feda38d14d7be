"""Turn off progress bars, remarks and deprecation warnings of libraries."""

from __future__ import annotations

import logging
import os
import warnings

# Libraries read these when they are imported, also in child processes.
_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    # Help and usage errors without escape sequences, which `pipelines.core.screen` would show as text.
    "_TYPER_FORCE_DISABLE_TERMINAL": "1",
}
_LIBRARIES = ("diffusers", "huggingface_hub", "insightface", "onnxruntime", "skimage", "torch", "transformers")


def silence_libraries() -> None:
    """Turn off what libraries print besides errors; environment variables that the user has set are kept."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Where it is installed, diffusers imports it at every start, and it names a package that it could do without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(_LIBRARIES)})(\.|$)")

"""From a name in the registry to an adapter folder."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.registry.settings import connect


def is_model_uri(text: str) -> bool:
    """Tell whether `text` names a registered model, such as `models:/dynamicid@champion`, and not a folder."""
    return text.startswith("models:/")


def adapter_folder(uri: str, root: Path) -> Path:
    """Download the registered model `uri` and return its adapter folder; raise UserError where there is none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    connect(root)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except MlflowException as error:
        raise UserError(
            f"{uri}: not in the registry at {mlflow.get_tracking_uri()} ({str(error).splitlines()[0]}); "
            "`dynamicid register` makes versions"
        ) from None
    adapter = folder / "artifacts" / "adapter"
    if not (adapter / "config.json").is_file():
        raise UserError(f"{uri}: this model holds no adapter; expected artifacts/adapter/config.json inside it")
    return adapter

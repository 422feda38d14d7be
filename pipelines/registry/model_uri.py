"""From a URI of the registry to an adapter folder."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.registry.faults import TrackingFault
from pipelines.registry.tracking import ask, connect


def is_model_uri(text: str) -> bool:
    """Return whether `text` names a registered model, such as `models:/dynamicid@champion`, and not a folder."""
    return text.startswith("models:/")


def find_adapter(wanted: str, root: Path) -> Path:
    """Return the adapter folder of `wanted`, a registered model or a folder; raise UserError where there is none."""
    if is_model_uri(wanted):
        return adapter_folder(wanted, root)
    folder = resolve(wanted)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no adapter here (config.json is missing); `dynamicid repro` trains one")
    return folder


def adapter_folder(uri: str, root: Path) -> Path:
    """Download the registered model `uri` and return its adapter folder; raise UserError where there is none."""
    connect(root)
    try:
        adapter = downloaded_adapter(uri)
    except TrackingFault as fault:
        raise UserError(f"{uri}: not in the registry ({fault}); `dynamicid register` makes versions") from None
    except FileNotFoundError as error:
        raise UserError(f"{uri}: its files are gone ({error}); `dynamicid restore` brings those of a backup") from None
    if not (adapter / "config.json").is_file():
        raise UserError(f"{uri}: this model holds no adapter; expected artifacts/adapter/config.json inside it")
    return adapter


def downloaded_adapter(uri: str) -> Path:
    """Return the place of the adapter in the registered model `uri`; files that are local are not copied."""
    import mlflow

    return Path(ask(mlflow.artifacts.download_artifacts, uri)) / "artifacts" / "adapter"

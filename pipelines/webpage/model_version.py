"""The model that the page draws with, and the version that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PageModel:
    """An adapter folder, and the version as the page shows it."""

    adapter: Path
    version: str


def find_model(wanted: str, root: Path) -> PageModel:
    """Find an adapter folder, or a registered model such as `models:/dynamicid@champion` in the registry of `root`.

    An alias is resolved to its version first, so that the page shows the version that was loaded even when the alias
    moves. Raises UserError where there is no such version, or no adapter in the folder.
    """
    from pipelines.core.files import folder_sha256
    from pipelines.registry.model_uri import adapter_folder, find_adapter, is_model_uri
    from pipelines.registry.registry import find_version, open_registry

    if not is_model_uri(wanted):
        folder = find_adapter(wanted, root)
        return PageModel(folder, f"{wanted}, {folder_sha256(folder)[:12]}")
    found = find_version(open_registry(root), wanted)
    version = f"{found.name}, version {found.version}"
    alias = wanted.partition("@")[2]
    adapter = adapter_folder(f"models:/{found.name}/{found.version}", root)
    return PageModel(adapter, f"{version} ({alias})" if alias else version)

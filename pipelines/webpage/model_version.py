"""Which model the page draws with, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shown:
    """An adapter folder, and the words that tell people which model it is."""

    adapter: Path
    version: str


def find_model(wanted: str, root: Path) -> Shown:
    """Find an adapter folder, or a registered model such as `models:/dynamicid@champion` in the ledger of `root`.

    An alias is resolved to its version first: what is shown is what was loaded, though the alias may move meanwhile.
    Raises UserError where there is no such version, or no adapter in the folder.
    """
    from pipelines.registry.log_model import adapter_hash
    from pipelines.registry.model_uri import adapter_folder, find_adapter, is_model_uri
    from pipelines.registry.registry import find_version, open_registry

    if not is_model_uri(wanted):
        folder = find_adapter(wanted, root)
        return Shown(folder, f"{wanted}, {adapter_hash(folder)[:12]}")
    found = find_version(open_registry(root), wanted)
    version = f"{found.name}, version {found.version}"
    alias = wanted.partition("@")[2]
    adapter = adapter_folder(f"models:/{found.name}/{found.version}", root)
    return Shown(adapter, f"{version} ({alias})" if alias else version)

"""Register an adapter that was not trained in this checkout: the one that ships, a converted or a copied one.

Nothing here says what made it, so its version has no lineage and no snapshot. It is evaluated on the held-out people of
this checkout first, and judged by the gates as every other.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256
from pipelines.core.params import Params
from pipelines.registry.champion_metrics import evaluated_alone
from pipelines.registry.log_model import Challenger
from pipelines.registry.model_uri import find_adapter
from pipelines.registry.promotion import Registration, present_state, register
from pipelines.registry.registry import open_registry, registry_lock, versions_of
from pipelines.versions.older import warn_if_older


def register_finished(params: Params, root: Path, adapter: Path, processed: Path) -> Registration:
    """Evaluate the adapter in the folder `adapter` on `processed` and register it; the champion if the gates pass.

    An adapter that has a version already keeps it, with its decision, and is not evaluated again: comparisons under
    other conditions draw it anyway. Raises UserError where adapter or photos are missing, and as `evaluate`.
    """
    folder = find_adapter(str(adapter), root)
    if not (root / processed).is_dir():
        raise UserError(
            f"{processed}: missing, and the adapter is evaluated on its held-out people; `dynamicid repro validate "
            "preprocess validate_processed` makes them"
        )
    client, name = open_registry(root), params.register_.model_name
    digest = folder_sha256(folder)
    with registry_lock(root):
        known = [one for one in versions_of(client, name) if one.tags.get("dynamicid.adapter_hash") == digest]
    if known and (state := present_state(client, known[-1])) is not None:
        return state
    warn_if_older(root, processed)
    with evaluated_alone(params, root / processed, folder, root) as alone:
        run_id = alone.record(root, f"evaluate {name}", {"stage": "evaluate_finished", "adapter_hash": digest})
        return register(
            params, Challenger(root, folder, alone.metrics, alone.report, root / processed, evaluate_run=run_id)
        )

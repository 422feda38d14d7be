"""Which held-out people did the networks that ship with the project see while they were trained?

Their manifests list the people by hashes of their names (`model/face/ledger.py`): those that a network was
trained on (`train`), and those on whom it was measured meanwhile, so that choices depend on them (`val`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.weights.manifest import named_paths
from pipelines.core.words import counted

# Networks, and their ledger in the manifest: of the adapter its own, of all others that of the foundation.
_ADAPTER, _FOUNDATION = "adapter", "foundation"
_SHOWN = 5
Ledger = Mapping[str, frozenset[str]]
"""`train` and `val`, each the hashes of names."""


def ledgers_of(params: Params, *adapters: Path) -> dict[str, Ledger]:
    """Return the ledgers of the shipped networks that `params` and `adapters` name, by what they belong to.

    Raises UserError where a manifest is damaged.
    """
    tree = params.model_dump(mode="json", by_alias=True)
    paths = [resolve(path) for path in named_paths(tree, ("base", "preprocess", "evaluate")).values()]
    if params.evaluate.shipped_adapter is not None:
        adapters = (*adapters, resolve(params.evaluate.shipped_adapter))
    named = [*((_FOUNDATION, path) for path in paths), *((_ADAPTER, path) for path in adapters)]
    found: dict[str, dict[str, set[str]]] = {}
    for name, path in named:
        for role, hashes in _read(path.resolve()).get(name, {}).items():
            found.setdefault(name, {}).setdefault(role, set()).update(hashes.split())
    return {name: {role: frozenset(hashes) for role, hashes in roles.items()} for name, roles in found.items()}


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Return the ledgers in the manifest of the folder of networks that holds `path`; none where there is none."""
    for folder in path.parents[:4]:
        file = folder / "manifest.json"
        if file.is_file():
            try:
                return dict(json.loads(file.read_text(encoding="utf-8")).get("seen", {}))
            except (ValueError, AttributeError):
                raise UserError(f"{file}: damaged; copy the networks again") from None
    return {}


def seen_people(people: Iterable[str], ledgers: Mapping[str, Ledger]) -> dict[str, dict[str, list[str]]]:
    """Return the `people` whom networks saw, sorted, by network and by what they were to it (`train`, `val`)."""
    from model.face.ledger import hash_of_person

    hashes = {hash_of_person(person): person for person in people}
    return {
        name: {role: sorted(hashes[one] for one in seen & hashes.keys()) for role, seen in roles.items()}
        for name, roles in ledgers.items()
    }


def leave_out_seen(people: Iterable[str], ledgers: Mapping[str, Ledger], params: Params) -> frozenset[str]:
    """Return the held-out `people` that do not take part, as shipped networks saw them, and print how many.

    On split val, only those that a network was trained on. Raises UserError, with names, where evaluate.seen_people
    refuses them.
    """
    settings = params.evaluate
    roles = ("train",) if settings.split == "val" else ("train", "val")
    found = {
        person: f"{name}, {role}"
        for name, seen in seen_people(people, ledgers).items()
        for role in reversed(roles)
        for person in seen.get(role, ())
    }
    if not found:
        return frozenset()
    shown = "; ".join(f"{person} ({found[person]})" for person in sorted(found)[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    people = counted(len(found), "person", "people")
    line = f"networks that ship have seen {people} of split {settings.split}: {shown}{more}"
    if settings.seen_people == "refuse":
        raise UserError(
            f"evaluate: {line}; figures on them are not of new people. Hold out others (`dynamicid synthesize` draws "
            "people whom no network has seen), or evaluate without them: evaluate.seen_people=leave_out"
        )
    print(f"evaluate: {line}; they are left out", file=sys.stderr)
    return frozenset(found)


def refuse_seen(people: Iterable[str], params: Params) -> None:
    """Raise UserError as `leave_out_seen` would for held-out `people`; print nothing."""
    if params.evaluate.seen_people == "refuse":
        leave_out_seen(people, ledgers_of(params), params)


def plain(people: Iterable[str], left_out: Iterable[str], ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    """Return the section `seen_by_shipped` of metrics.json: how many who take part were seen, by network and role."""
    counts = {
        name: {role: len(seen) for role, seen in roles.items()} for name, roles in seen_people(people, ledgers).items()
    }
    return {**counts, "left_out": len(set(left_out))}

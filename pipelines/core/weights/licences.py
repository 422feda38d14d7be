"""Licences of the networks that form an adapter: which they are, and what the policy `register.licences` refuses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.sections.evaluation import Licences
from pipelines.core.weights.identify import identified_at
from pipelines.core.weights.manifest import OWN, SHAPING, Manifest, named_paths, read_manifest

UNKNOWN = "unknown"
# What `register.licences` may name, beside licences: what a licence forbids.
NO_COMMERCE, NO_REDISTRIBUTION = "no-commercial-use", "no-redistribution"


def networks_of(params: Params, root: Path | None = None) -> list[dict[str, Any]]:
    """Return the networks that form an adapter trained with `params`: the base, and those that analyse the photos.

    Each is a JSON object: `parameter` (the key that names it), `network` (its name in the manifest) or else `path`,
    `licence` (null: none is known) and what that allows, `commercial` and `redistribution`. A network is recognised by
    the content of its files, wherever they lie, else by its path.
    """
    return networks_at(named_paths(params.model_dump(mode="json", by_alias=True), SHAPING), root)


def networks_at(paths: Mapping[str, str], root: Path | None = None) -> list[dict[str, Any]]:
    """Return, as `networks_of`, the networks at `paths`, which are given by what names them."""
    manifest = read_manifest(root)
    found = []
    for key, one in identified_at(paths, root).items():
        place = {"path": one.path} if one.name is None else {"network": one.name}
        found.append({"parameter": key, **place, **_terms(manifest, one.network.licence if one.network else None)})
        made_with = [{**other, "parameter": f"{key} made with {other['parameter']}"} for other in _made_with(one.path)]
        found += [other for other in made_with if not any(_same(other, known) for known in found)]
    return found


def _made_with(path: str) -> list[dict[str, Any]]:
    """Return the networks with which a base of photographs was made, as its manifest records them; none for others."""
    try:
        recorded = json.loads((resolve(path).parent / "manifest.json").read_bytes())
        return [dict(network) for network in recorded.get("origin", {}).get("networks", ())]
    except (OSError, ValueError, AttributeError):
        return []


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return {**one, "parameter": None} == {**other, "parameter": None}


def recorded_networks(made_by: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """Return the networks that an adapter's configuration records (`made_by`), of all its trainings, each once.

    None where a training recorded none, as before this version.
    """
    found: dict[str, dict[str, Any]] = {}
    while made_by is not None:
        if "networks" not in made_by:
            return None
        for network in made_by["networks"]:
            found.setdefault(str(sorted(network.items(), key=str)), dict(network))
        made_by = made_by.get("before")
    return list(found.values()) or None


def networks_of_adapter(folder: Path, root: Path | None = None) -> list[dict[str, Any]] | None:
    """Return the networks that the adapter in `folder` records; None where it, or its configuration, records none.

    An adapter that records none but is itself in the manifest, such as the one that ships, is the only one. A licence
    that was not known when it was recorded is what the manifest, or weights.yaml in `root`, states now.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    networks = recorded_networks(config.get("made_by")) if isinstance(config, dict) else None
    if networks is None:
        itself = networks_at({"adapter": str(folder)}, root)
        return itself if "network" in itself[0] else None
    return [_completed(network, read_manifest(root), root) for network in networks]


def _completed(network: dict[str, Any], manifest: Manifest, root: Path | None) -> dict[str, Any]:
    name = network["network"] if "network" in network else manifest.at(network["path"], root)
    known = manifest.networks.get(name) if name is not None else None
    if network["licence"] is not None or known is None or known.licence is None:
        return network
    return {**network, **_terms(manifest, known.licence)}


def _terms(manifest: Manifest, licence: str | None) -> dict[str, Any]:
    terms = None if licence is None else manifest.licences[licence]
    allowed = {name: None if terms is None else getattr(terms, name) for name in ("commercial", "redistribution")}
    return {"licence": licence, **allowed}


def licences_by_network(networks: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Return the licence of each recorded network by its name, or by its parameter where it has none."""
    return {str(one.get("network") or one["parameter"]): one["licence"] or UNKNOWN for one in networks or ()}


def describe(network: Mapping[str, Any]) -> str:
    """Return the name or path of a recorded network, for messages."""
    return str(network.get("network") or network.get("path"))


def licence_faults(networks: Iterable[Mapping[str, Any]] | None, policy: Licences) -> list[str]:
    """Return a sentence for every network whose licence the policy refuses; none where the policy is empty.

    Patterns are compared without regard to case. A network without a known licence is refused by every policy.
    """
    if not (policy.allow or policy.deny):
        return []
    if networks is None:
        return ["register.licences: this adapter does not record which networks formed it; train it again"]
    faults: dict[str, None] = {}
    for network in networks:
        reason = _refusal(network, policy)
        if reason:
            faults[f"register.licences: {describe(network)} ({network['parameter']}) {reason}"] = None
    return list(faults)


def _refusal(network: Mapping[str, Any], policy: Licences) -> str | None:
    licence = network["licence"]
    if licence is None:
        return f"has no known licence; state it in {OWN}"
    words = [licence]
    words += [NO_COMMERCE] * (network["commercial"] is False) + [NO_REDISTRIBUTION] * (
        network["redistribution"] is False
    )
    for word in words:
        for pattern in policy.deny:
            if fnmatchcase(word.casefold(), pattern.strip().casefold()):
                return f"has the licence {licence}, denied" + ("" if word == licence else f" as {word}")
    if policy.allow and not any(fnmatchcase(licence.casefold(), one.strip().casefold()) for one in policy.allow):
        return f"has the licence {licence}, not among those allowed"
    return None


def check_licences(
    params: Params, starts: Mapping[str, Path | None] | None = None, root: Path | None = None
) -> list[dict[str, Any]]:
    """Return `networks_of(params)` and those of the adapters in `starts` that a training starts from, by parameter.

    Raises StageFailed where `register.licences` refuses one of them: an adapter that would not be promoted is not
    trained.
    """
    networks = networks_of(params, root)
    for parameter, start in (starts or {}).items():
        if start is None:
            continue
        before = networks_of_adapter(start)
        stage, key = parameter.split(".")
        unknown = {"parameter": parameter, "path": getattr(getattr(params, stage), key)}
        unknown |= _terms(read_manifest(root), None)
        networks += [one for one in ([unknown] if before is None else before) if one not in networks]
    if faults := licence_faults(networks, params.register_.licences):
        manifest = read_manifest(root)
        names = [str(network["network"]) for network in networks if "network" in network]
        instead = sorted(
            {other for name in names if name in manifest.networks for other in manifest.networks[name].instead}
        )
        hint = f"; what may stand in for some networks: {', '.join(instead)}" if instead else ""
        raise StageFailed(f"{'; '.join(faults)}: an adapter formed by them would not be promoted{hint}")
    return networks

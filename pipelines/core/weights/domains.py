"""Which pictures networks know: drawings, photographs, or any; and whether that meets the data.

A network of drawn people says nothing about photographs, nor the other way. What a network knows is stated by `domain`
beside its path, or in a section around it (the user vouches for it), else in the manifest.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.dataset as ds

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, read_rows
from pipelines.core.weights.identify import identified_at
from pipelines.core.weights.manifest import OWN, named_paths

DRAWN: Final = "drawn"
PHOTOGRAPH: Final = "photograph"
ANY: Final = "any"
UNKNOWN: Final = "unknown"
_WORDS = {DRAWN: "drawings", PHOTOGRAPH: "photographs", UNKNOWN: "pictures of an unknown kind"}
_OTHER = {DRAWN: PHOTOGRAPH, PHOTOGRAPH: DRAWN}


@dataclass(frozen=True)
class NetworkDomain:
    """A network that parameters name: `key` of its path, `name` in the manifest or path, and what it knows.

    `domain` is drawn, photograph, any, or unknown; `setting` is the key by which a user vouches for the network.
    """

    key: str
    name: str
    domain: str
    setting: str


def network_domains(params: Params, sections: tuple[str, ...], root: Path | None = None) -> list[NetworkDomain]:
    """Return what the networks of some sections of the parameters know, by key, sorted."""
    tree = params.model_dump(mode="json", by_alias=True)
    paths = named_paths(tree, sections)
    stated = {key: _stated(tree, key) for key in paths}
    known = identified_at({key: path for key, path in paths.items() if stated[key][0] is None}, root, quick=True)
    found = []
    for key, path in sorted(paths.items()):
        domain, setting = stated[key]
        one = known.get(key)
        if domain is None:
            domain = one.network.domain if one is not None and one.network is not None else UNKNOWN
        found.append(NetworkDomain(key, (one.name if one is not None else None) or path, domain, setting))
    return found


def _stated(tree: Mapping[str, Any], key: str) -> tuple[str | None, str]:
    """Return the `domain` nearest to a key, None without one, and the key that states it, or could."""
    settings: list[tuple[str, str | None]] = []
    node: Any = tree
    for depth, part in enumerate(key.split(".")):
        if isinstance(node, Mapping) and "domain" in node and depth:
            settings.append((".".join([*key.split(".")[:depth], "domain"]), node["domain"]))
        node = node[int(part)] if isinstance(node, list) else node.get(part) if isinstance(node, Mapping) else None
    stated = [(value, setting) for setting, value in settings if value is not None]
    if stated:
        return stated[-1]
    return None, settings[-1][0] if settings else f"{key.split('.', maxsplit=1)[0]}.domain"


def main_domain(counts: Mapping[str, int]) -> str:
    """Return what most of the pictures are: drawn, photograph, or unknown where fewer than half are one of these."""
    drawn, photographs = counts.get(DRAWN, 0), counts.get(PHOTOGRAPH, 0)
    if not drawn + photographs or 2 * (drawn + photographs) < sum(counts.values()):
        return UNKNOWN
    return DRAWN if drawn >= photographs else PHOTOGRAPH


def domains_of(processed: Path) -> Counter[str]:
    """Return how many accepted photos of `data/processed` are drawn, photographs and unknown; raises as `open_rows`."""
    column = read_rows(processed, PROCESSED_SCHEMA, ["domain"], ds.field("status") == OK)["domain"]
    counts: Counter[str] = Counter()
    for item in column.value_counts().to_pylist():
        counts[item["values"] or UNKNOWN] += item["counts"]
    return counts


def conflicts(networks: list[NetworkDomain], domain: str) -> list[NetworkDomain]:
    """Return the networks that know only the other kind of pictures."""
    return [network for network in networks if network.domain == _OTHER.get(domain)]


def describe_conflict(networks: list[NetworkDomain], domain: str) -> str:
    """Return which networks do not know pictures of `domain`, and the settings that help."""
    named = ", ".join(f"{one.name} ({one.key})" for one in networks)
    settings = sorted({f"--set {one.setting}={domain}" for one in networks})
    return (
        f"{named} know{'s' if len(networks) == 1 else ''} only {_WORDS[_OTHER[domain]]}, so results would be wrong; "
        f"name networks for {_WORDS[domain]} (`dynamicid weights list` says what each knows), or, if you vouch for "
        f"these, {' '.join(settings)}"
    )


def check_domains(
    what: str,
    networks: list[NetworkDomain],
    *,
    stated: Mapping[str, int] | None = None,
    measured: Mapping[str, int] | None = None,
) -> None:
    """Raise UserError where pictures and networks do not meet; print what is in doubt.

    `what` names the pictures; `stated` counts those whose source says what they are, `measured` those recognised by
    their pixels, where the greater part decides.
    """
    stated, measured = dict(stated or {}), dict(measured or {})
    for domain in (DRAWN, PHOTOGRAPH):
        if stated.get(domain) and (wrong := conflicts(networks, domain)):
            raise UserError(f"{what}: {stated[domain]} are {_WORDS[domain]}: {describe_conflict(wrong, domain)}")
    main, total = main_domain(measured), sum(measured.values())
    if wrong := conflicts(networks, main):
        count = f"{measured[main]} of {total}"
        raise UserError(
            f"{what}: {count} seem to be {_WORDS[main]}: {describe_conflict(wrong, main)}; if they are "
            f"{_WORDS[_OTHER[main]]}, ingest them with ingest.domain={_OTHER[main]}"
        )
    if total and main == UNKNOWN:
        _note(f"{what}: {measured.get(UNKNOWN, 0)} of {total} may be drawings or photographs; ingest.domain states it")
    elif total and (other := measured.get(_OTHER.get(main, ""), 0)):
        _note(f"{what}: mostly {_WORDS[main]}, but {other} of {total} seem to be {_WORDS[_OTHER[main]]}")
    for network in networks:
        if network.domain == UNKNOWN:
            _note(
                f"{network.key} = {network.name}: nobody says whether it knows drawings or photographs; "
                f"{network.setting} or {OWN} states it"
            )


def _note(text: str) -> None:
    print(text, file=sys.stderr)
